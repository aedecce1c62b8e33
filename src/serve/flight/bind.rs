//! DoPut to a prepared statement: one row of parameters enters, a new handle that holds them leaves.
//!
//! The handle that was bound to stays what it was; clients use the new one (arrow-flight, Arrow's Go, Java and C++ do).

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow_flight::decode::DecodedPayload;
use arrow_flight::sql::{Command, DoPutPreparedStatementResult};
use arrow_flight::{FlightData, PutResult};
use futures::Stream;
use prost::Message;
use tonic::Status;

use super::command;
use super::decode::{Broken, Decoder, guarded, refused};
use super::handle::{Handle, Kind};
use crate::query::TypedParameters;
use crate::serve::access::Identity;
use crate::wire::Encoder;

/// What the parameters of one statement may take, in bytes.
const PARAMETERS_BYTES_MAX: usize = 1 << 20;
/// As the public runtime says it.
const SINGLE_ROW: &str = "parameters should contain a single row";

/// The prepared statement that a call binds parameters to, by its first message; none where it is for something else.
pub(super) fn target(first: Option<&FlightData>) -> Option<Vec<u8>> {
    match Command::try_from(command::of_first(first)?) {
        Ok(Command::CommandPreparedStatementQuery(query)) => Some(query.prepared_statement_handle.into()),
        _ => None,
    }
}

/// Binds the one row of `messages`.
///
/// # Errors
/// INVALID_ARGUMENT for a handle that is not this caller's, and for what is no row of parameters.
pub(super) async fn bind(
    handle: &[u8],
    identity: &Identity,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<PutResult, Status> {
    let handle = Handle::open(handle, Kind::Prepared, identity)?;
    let row = row(messages).await?;
    // What cannot be bound is told now.
    typed(&row)?;
    let sealed = handle.binding(encoded(&row)?).seal(Kind::Prepared, identity);
    let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(sealed.into()) };
    Ok(PutResult { app_metadata: result.encode_to_vec().into() })
}

/// The one row that the messages hold, its dictionaries unfolded.
///
/// # Errors
/// INVALID_ARGUMENT for any other number of rows, and for what is no Arrow data.
pub(super) async fn row(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<RecordBatch, Status> {
    let mut decoder = Decoder::new(messages);
    let mut row: Option<RecordBatch> = None;
    while let Some(payload) = decoder.next().await.map_err(Broken::status)? {
        match payload {
            DecodedPayload::RecordBatch(batch) if batch.num_rows() == 0 => {}
            DecodedPayload::RecordBatch(batch) if batch.num_rows() == 1 && row.is_none() => row = Some(batch),
            DecodedPayload::RecordBatch(_) => {
                return Err(Status::invalid_argument(format!(
                    "{SINGLE_ROW}, more were sent: run the statement once for each"
                )));
            }
            DecodedPayload::Schema(_) | DecodedPayload::None => {}
        }
    }
    let row = row.ok_or_else(|| Status::invalid_argument(format!("{SINGLE_ROW}, none was sent")))?;
    guarded(|| unfolded(&row)).map_err(|why| refused(&why).status())
}

/// The row as parameters of a statement.
///
/// # Errors
/// INVALID_ARGUMENT for a value that no literal says.
pub(super) fn typed(row: &RecordBatch) -> Result<TypedParameters, Status> {
    let typed = guarded(|| TypedParameters::try_new(row).map_err(|error| error.to_string()));
    typed.map_err(|why| refused(&why).status())
}

/// The same row without dictionaries: one row shares no values.
fn unfolded(row: &RecordBatch) -> Result<RecordBatch, String> {
    let schema = row.schema();
    let unfold = |(field, column): (&FieldRef, &ArrayRef)| match column.data_type() {
        DataType::Dictionary(_, value) => {
            let plain = cast(column, value).map_err(|error| error.to_string())?;
            Ok((Field::new(field.name(), value.as_ref().clone(), true), plain))
        }
        _ => Ok((field.as_ref().clone(), ArrayRef::clone(column))),
    };
    let columns =
        schema.fields().iter().zip(row.columns()).map(unfold).collect::<Result<Vec<_>, String>>()?;
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Schema::new(fields).into(), columns, &options)
        .map_err(|error| error.to_string())
}

fn encoded(row: &RecordBatch) -> Result<Vec<FlightData>, Status> {
    let broken = |error| Status::internal(format!("the parameters cannot be kept: {error}"));
    let mut encoder = Encoder::new(row.schema());
    let mut messages: Vec<FlightData> = encoder.take().map_err(broken)?.into_iter().collect();
    encoder.feed(row.clone()).map_err(broken)?;
    while let Some(message) = encoder.take().map_err(broken)? {
        messages.push(message);
    }
    let bytes: usize = messages.iter().map(Message::encoded_len).sum();
    match bytes > PARAMETERS_BYTES_MAX {
        true => Err(Status::invalid_argument(format!(
            "the parameters take {bytes} bytes, at most {PARAMETERS_BYTES_MAX} are bound: write large values into a \
             dataset, and join it"
        ))),
        false => Ok(messages),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int8Type;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::executor::block_on;
    use futures::{TryStreamExt, stream};
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;
    use crate::serve::flight::tests::fuzz;

    fn sent(row: RecordBatch) -> Vec<FlightData> {
        let encoder = FlightDataEncoderBuilder::new().build(stream::iter([Ok(row)]));
        block_on(encoder.try_collect()).unwrap()
    }

    fn one() -> RecordBatch {
        let word: DictionaryArray<Int8Type> = vec!["x"].into_iter().collect();
        let price = Decimal128Array::from(vec![15]).with_precision_and_scale(9, 1).unwrap();
        RecordBatch::try_from_iter([
            ("$1", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("$2", Arc::new(StringViewArray::from(vec!["long enough for a view"]))),
            ("$3", Arc::new(word)),
            ("$4", Arc::new(price)),
        ])
        .unwrap()
    }

    fn bound(handle: &[u8], messages: Vec<FlightData>) -> Result<Vec<u8>, Status> {
        let messages = stream::iter(messages.into_iter().map(Ok));
        let result = block_on(bind(handle, &Identity::anonymous(), messages))?;
        let result = DoPutPreparedStatementResult::decode(result.app_metadata).unwrap();
        Ok(result.prepared_statement_handle.unwrap().into())
    }

    fn prepared() -> Vec<u8> {
        Handle::new("SELECT $1".into()).seal(Kind::Prepared, &Identity::anonymous())
    }

    #[test]
    fn the_new_handle_holds_the_row_and_may_be_bound_again() {
        let first = bound(&prepared(), sent(one())).unwrap();
        let second = bound(&first, sent(one().project(&[0]).unwrap())).unwrap();
        assert!(second.len() < first.len() && second != prepared());
    }

    proptest! {
        #![proptest_config(fuzz(2_000))]

        #[test]
        fn hostile_rows_are_errors_at_worst(
            which in 0usize..8,
            is_body: bool,
            flips in proptest::collection::vec((0usize..4096, any::<u8>()), 1..6),
        ) {
            let mut messages = sent(one());
            let at = which % messages.len();
            let part = if is_body { &mut messages[at].data_body } else { &mut messages[at].data_header };
            let mut bytes = part.to_vec();
            let len = bytes.len();
            for (place, value) in flips.into_iter().filter(|_| len > 0) {
                bytes[place % len] = value;
            }
            *part = bytes.into();
            if let Err(status) = bound(&prepared(), messages) {
                prop_assert_eq!(status.code(), Code::InvalidArgument, "{:?}", status);
            }
        }
    }
}
