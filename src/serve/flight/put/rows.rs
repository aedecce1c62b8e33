//! The messages of one DoPut as batches of the table: decoded, bounded, fitted.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::DecodedPayload;
use futures::Stream;
use tonic::Status;

use super::super::decode::{Broken, Decoder, guarded, refused};
use super::super::sizes::Pieces;
use super::columns::Columns;

/// See the module.
pub(super) struct Rows {
    table: SchemaRef,
    decoder: Decoder,
    /// What was sent last as schema, and how it fits.
    sent: Option<(SchemaRef, Columns)>,
    pieces: Pieces,
}

impl Rows {
    /// Rows for a table of schema `table`.
    pub(super) fn new(
        table: &SchemaRef,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Self {
        let decoder = Decoder::new(messages);
        Self { table: Arc::clone(table), decoder, sent: None, pieces: Pieces::default() }
    }

    /// Reads the schema that has to come first, so that a client that sends other columns hears of it at once.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(super) async fn begin(&mut self) -> Result<(), Broken> {
        while self.sent.is_none() {
            match self.decoder.next().await? {
                Some(DecodedPayload::Schema(schema)) => self.begin_schema(schema)?,
                Some(DecodedPayload::None) => {}
                Some(DecodedPayload::RecordBatch(_)) => {
                    return Err(refused("a batch came before its schema"));
                }
                None => return Err(refused("the stream has no schema: send one, then batches")),
            }
        }
        Ok(())
    }

    /// The next rows, as the table has them; none at the end.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, Broken> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return self.fitted(&piece).map(Some);
            }
            match self.decoder.next().await? {
                None => return Ok(None),
                Some(DecodedPayload::None) => {}
                Some(DecodedPayload::Schema(schema)) => self.begin_schema(schema)?,
                Some(DecodedPayload::RecordBatch(batch)) => {
                    self.pieces = guarded(|| Pieces::of(batch)).map_err(|why| refused(&why))?;
                }
            }
        }
    }

    /// A schema that is sent again is no other one.
    fn begin_schema(&mut self, schema: SchemaRef) -> Result<(), Broken> {
        let columns = guarded(|| Columns::try_new(&self.table, &schema));
        let columns = columns.map_err(|why| refused(&format!("the columns do not fit the table: {why}")))?;
        match &self.sent {
            Some((before, _)) if before.fields() != schema.fields() => {
                Err(refused("another schema came in the middle of the stream: put it in a call of its own"))
            }
            _ => {
                self.sent = Some((schema, columns));
                Ok(())
            }
        }
    }

    fn fitted(&self, piece: &RecordBatch) -> Result<RecordBatch, Broken> {
        // The decoder refuses a batch before its schema.
        let Some((_, columns)) = &self.sent else { return Err(refused("a batch came before its schema")) };
        let fitted = guarded(|| columns.fitted(piece).map_err(|error| error.to_string()));
        fitted.map_err(|why| refused(&format!("the rows do not fit the table: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, AsArray, DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray,
    };
    use arrow::datatypes::{Int32Type, Int64Type, Schema};
    use arrow::ipc::writer::{DictionaryHandling, IpcWriteOptions};
    use arrow_flight::encode::{DictionaryHandling as Sent, FlightDataEncoderBuilder};
    use futures::{TryStreamExt, stream};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use tonic::Code;

    use super::*;

    fn words(rows: &[&str]) -> ArrayRef {
        Arc::new(rows.iter().copied().collect::<DictionaryArray<Int32Type>>())
    }

    fn batch(word: ArrayRef) -> RecordBatch {
        let rows = word.len() as i64;
        let lists = (0..rows).map(|row| (row % 2 == 0).then(|| vec![Some(row), None]));
        RecordBatch::try_from_iter_with_nullable([
            (
                "n",
                Arc::new(Int64Array::from_iter((0..rows).map(|row| (row != 1).then_some(row)))) as ArrayRef,
                true,
            ),
            (
                "v",
                Arc::new(StringViewArray::from_iter_values(
                    (0..rows).map(|row| "long enough".repeat(row as usize)),
                )),
                true,
            ),
            ("word", word, true),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)), true),
        ])
        .unwrap()
    }

    fn messages(batches: Vec<RecordBatch>, dictionaries: DictionaryHandling) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().with_dictionary_handling(dictionaries);
        let encoder = FlightDataEncoderBuilder::new()
            .with_options(options)
            .with_dictionary_handling(Sent::Resend)
            .build(stream::iter(batches.into_iter().map(Ok)));
        futures::executor::block_on(encoder.try_collect()).unwrap()
    }

    fn read(table: &SchemaRef, messages: Vec<FlightData>) -> Result<Vec<RecordBatch>, Status> {
        futures::executor::block_on(async {
            let mut rows = Rows::new(table, stream::iter(messages.into_iter().map(Ok)));
            rows.begin().await.map_err(Broken::status)?;
            let mut read = Vec::new();
            while let Some(batch) = rows.next().await.map_err(Broken::status)? {
                read.push(batch);
            }
            Ok(read)
        })
    }

    fn texts(batches: &[RecordBatch]) -> Vec<String> {
        let plain = |batch: &RecordBatch| {
            arrow::compute::cast(batch.column(2), &arrow::datatypes::DataType::Utf8).unwrap()
        };
        let texts = |batch| {
            plain(batch).as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
        };
        batches.iter().flat_map(texts).collect()
    }

    #[test]
    fn dictionaries_may_be_sent_again_and_grow() {
        let parts = [&["a", "b", "a"][..], &["a", "b", "c", "c"], &["z"]];
        let batches: Vec<RecordBatch> = parts.iter().map(|part| batch(words(part))).collect();
        for handling in [DictionaryHandling::Resend, DictionaryHandling::Delta] {
            let read = read(&batches[0].schema(), messages(batches.clone(), handling)).unwrap();
            assert_eq!(texts(&read), ["a", "b", "a", "a", "b", "c", "c", "z"]);
        }
        // The same as plain texts for a table that has them so.
        let table = batch(Arc::new(StringArray::from(vec!["x"]))).schema();
        let read = read(&table, messages(batches, DictionaryHandling::Resend)).unwrap();
        assert_eq!(texts(&read).len(), 8);
        assert!(read.iter().all(|batch| batch.schema() == table));
    }

    #[test]
    fn what_has_no_data_is_passed_over_and_a_schema_may_come_twice() {
        let one = batch(words(&["a"]));
        let mut sent = messages(vec![one.clone()], DictionaryHandling::Resend);
        sent.insert(0, FlightData { app_metadata: "x".into(), ..FlightData::default() });
        sent.insert(2, sent[1].clone());
        assert_eq!(texts(&read(&one.schema(), sent).unwrap()), ["a"]);
    }

    #[test]
    fn streams_without_rows_for_the_table_are_refused_in_words() {
        let table = batch(words(&["a"])).schema();
        let whole = messages(vec![batch(words(&["a"]))], DictionaryHandling::Resend);
        let other =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let other = messages(vec![other], DictionaryHandling::Resend);
        let said = |sent: Vec<FlightData>| {
            let status = read(&table, sent).unwrap_err();
            format!("{:?}: {}", status.code(), status.message())
        };
        let garbage = FlightData { data_header: "no message".into(), ..FlightData::default() };
        let told = [
            said(vec![]),
            said(whole[1..].to_vec()),
            said(other.clone()),
            said([&whole[..], &other[..1]].concat()),
            said(vec![whole[0].clone(), garbage]),
        ];
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(read(&Arc::new(Schema::empty()), vec![]).unwrap_err().code(), Code::InvalidArgument);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::with_cases(match std::env::var_os("SIDEWING_LONG") {
                Some(_) => 1_000_000,
                None => 2_000,
            })
        })]

        #[test]
        fn hostile_messages_are_errors_at_worst(
            which in 0usize..8,
            is_body: bool,
            compressed: bool,
            flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..6),
            cut in 0usize..200,
        ) {
            let parts = vec![batch(words(&["a", "b", "a"])), batch(words(&["a", "c", "d", "d"]))];
            let table = parts[0].schema();
            let options = IpcWriteOptions::default()
                .with_dictionary_handling(DictionaryHandling::Delta)
                .try_with_compression(compressed.then_some(arrow::ipc::CompressionType::ZSTD))
                .unwrap();
            let encoder = FlightDataEncoderBuilder::new()
                .with_options(options)
                .with_dictionary_handling(Sent::Resend)
                .build(stream::iter(parts.into_iter().map(Ok)));
            let mut messages: Vec<FlightData> = futures::executor::block_on(encoder.try_collect()).unwrap();
            let at = which % messages.len();
            let part = if is_body { &mut messages[at].data_body } else { &mut messages[at].data_header };
            let mut bytes = part.to_vec();
            let len = bytes.len();
            for (place, value) in flips.into_iter().filter(|_| len > 0) {
                bytes[place % len] = value;
            }
            if cut < 20 {
                bytes.truncate(len.saturating_sub(cut));
            }
            *part = bytes.into();
            // Garbage may decode to other values; what comes is of the table, or an error for the client.
            match read(&table, messages) {
                Ok(batches) => prop_assert!(batches.iter().all(|batch| batch.schema() == table)),
                Err(status) => prop_assert_eq!(status.code(), Code::InvalidArgument),
            }
        }
    }
}
