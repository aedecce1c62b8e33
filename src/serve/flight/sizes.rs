//! What a message will take in memory, before it does: a few bytes can stand for many, by compression, dictionaries and
//! views.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow_flight::FlightData;
use arrow_ipc::root_as_message;

/// Bytes of one message, and of all dictionaries of a call, once they are decompressed.
pub(super) const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one batch when each row has values of its own.
pub(super) const PLAIN_BYTES_MAX: usize = 1 << 30;
/// A batch is handed on in pieces of about so many bytes.
const PIECE_BYTES: usize = 8 << 20;
/// What a row costs whatever is in it: its hash, a view, an offset.
const ROW_BYTES: usize = 16;

/// What the messages of one call have unpacked to so far.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// By id.
    dictionaries: HashMap<i64, u64>,
}

impl Unpacked {
    /// # Errors
    /// Words for a client whose message is too large.
    pub(super) fn count(&mut self, message: &FlightData) -> Result<(), String> {
        // What is no message is told by who decodes it.
        let Ok(root) = root_as_message(&message.data_header) else { return Ok(()) };
        if root.header_as_schema().is_some() {
            self.dictionaries.clear();
        }
        if let Some(batch) = root.header_as_record_batch() {
            within(bytes_of(&batch, &message.data_body), "the message")?;
        }
        if let Some(dictionary) = root.header_as_dictionary_batch() {
            let bytes = dictionary.data().map_or(0, |data| bytes_of(&data, &message.data_body));
            let known = self.dictionaries.entry(dictionary.id()).or_default();
            *known = if dictionary.isDelta() { known.saturating_add(bytes) } else { bytes };
            let all = self.dictionaries.values().fold(0, |all: u64, bytes| all.saturating_add(*bytes));
            within(all, "the dictionaries of this call")?;
        }
        Ok(())
    }
}

fn within(bytes: u64, what: &str) -> Result<(), String> {
    match bytes > UNPACKED_BYTES_MAX {
        true => {
            Err(format!("{what} would take {bytes} bytes, above {UNPACKED_BYTES_MAX}: send smaller batches"))
        }
        false => Ok(()),
    }
}

/// Bytes of the buffers of a batch, decompressed.
fn bytes_of(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8]) -> u64 {
    let is_compressed = batch.compression().is_some();
    let length = |offset: i64, length: i64| {
        let plain = u64::try_from(length).unwrap_or(0);
        let prefix = || {
            let from = usize::try_from(offset).ok()?;
            let bytes = body.get(from..from.checked_add(8)?)?;
            Some(i64::from_le_bytes(bytes.try_into().ok()?))
        };
        // A buffer without bytes has no prefix either.
        match (is_compressed && plain > 0).then(prefix).flatten() {
            // -1: this buffer is as it is.
            Some(unpacked) => u64::try_from(unpacked).unwrap_or(plain),
            None => plain,
        }
    };
    let buffers = batch.buffers().into_iter().flatten();
    buffers.fold(0, |all: u64, buffer| all.saturating_add(length(buffer.offset(), buffer.length())))
}

/// Pieces of a batch that are small when each row has values of its own.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The first one on top.
    rest: Vec<RecordBatch>,
}

impl Pieces {
    /// # Errors
    /// Words for a client whose batch is too large.
    pub(super) fn of(batch: RecordBatch) -> Result<Self, String> {
        let bytes = plain_bytes(&batch);
        match bytes > PLAIN_BYTES_MAX {
            true => Err(format!(
                "the rows of the message would take {bytes} bytes, above {PLAIN_BYTES_MAX}: send smaller batches"
            )),
            false => Ok(Self { rest: vec![batch] }),
        }
    }
}

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        loop {
            let batch = self.rest.pop()?;
            let rows = batch.num_rows();
            if rows < 2 || plain_bytes(&batch) <= PIECE_BYTES {
                return Some(batch);
            }
            let half = rows / 2;
            self.rest.extend([batch.slice(half, rows - half), batch.slice(0, half)]);
        }
    }
}

/// Bytes of the rows when each has values of its own.
fn plain_bytes(batch: &RecordBatch) -> usize {
    let rows = batch.num_rows().saturating_mul(ROW_BYTES);
    batch.columns().iter().fold(rows, |all, column| all.saturating_add(bytes(column)))
}

fn bytes(array: &ArrayRef) -> usize {
    let shown =
        |values: &ArrayRef, from: usize, to: usize| bytes(&values.slice(from, to.saturating_sub(from)));
    match array.data_type() {
        DataType::Utf8View => array.as_string_view().lengths().map(|length| length as usize).sum(),
        DataType::BinaryView => array.as_binary_view().lengths().map(|length| length as usize).sum(),
        DataType::Dictionary(..) => dictionary_bytes(array),
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes).sum(),
        DataType::FixedSizeList(..) => bytes(array.as_fixed_size_list().values()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            shown(list.values(), offsets[0] as usize, offsets[list.len()] as usize)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            shown(list.values(), offsets[0] as usize, offsets[list.len()] as usize)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (from, to) = (map.value_offsets()[0] as usize, map.value_offsets()[map.len()] as usize);
            map.entries().columns().iter().map(|column| shown(column, from, to)).sum()
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// Each row counts its value, however many share it.
fn dictionary_bytes(array: &ArrayRef) -> usize {
    let any = array.as_any_dictionary();
    let values = any.values();
    if values.is_empty() {
        return 0;
    }
    any.normalized_keys().into_iter().fold(0, |all, key| all.saturating_add(value_bytes(values, key)))
}

fn value_bytes(values: &ArrayRef, at: usize) -> usize {
    match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value_length(at) as usize,
        DataType::LargeUtf8 => values.as_string::<i64>().value_length(at) as usize,
        DataType::Utf8View => values.as_string_view().value(at).len(),
        DataType::Binary => values.as_binary::<i32>().value_length(at) as usize,
        DataType::LargeBinary => values.as_binary::<i64>().value_length(at) as usize,
        DataType::BinaryView => values.as_binary_view().value(at).len(),
        // Already counted with the row.
        kind if kind.primitive_width().is_some_and(|width| width <= ROW_BYTES) => 0,
        _ => bytes(&values.slice(at, 1)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int8Array, Int64Array, NullArray, StringArray, StringViewArray};
    use arrow::compute::concat_batches;
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::TryStreamExt;

    use super::*;

    fn one(column: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("c", Arc::new(column) as ArrayRef, true)]).unwrap()
    }

    fn messages(batch: RecordBatch, compression: Option<CompressionType>) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let encoder = FlightDataEncoderBuilder::new()
            .with_options(options)
            .with_max_flight_data_size(usize::MAX)
            .build(futures::stream::iter([Ok(batch)]));
        futures::executor::block_on(encoder.try_collect()).unwrap()
    }

    fn counted(messages: &[FlightData]) -> Result<(), String> {
        let mut unpacked = Unpacked::default();
        messages.iter().try_for_each(|message| unpacked.count(message))
    }

    #[test]
    fn compressed_bytes_count_as_they_will_be() {
        let zeros = |rows: usize| one(Int64Array::from(vec![0; rows]));
        let most = UNPACKED_BYTES_MAX as usize / 8;
        for compression in [CompressionType::ZSTD, CompressionType::LZ4_FRAME] {
            assert_eq!(counted(&messages(zeros(most - 64), Some(compression))), Ok(()));
            let bomb = messages(zeros(most + 64), Some(compression));
            assert!(bomb.iter().map(|message| message.data_body.len()).sum::<usize>() < 1 << 20);
            let refused = counted(&bomb).unwrap_err();
            assert!(refused.starts_with("the message would take 67"), "{refused}");
        }
        // A length that nothing has: it must not be allocated.
        let mut lies = messages(zeros(1 << 16), Some(CompressionType::ZSTD));
        let mut body = lies[1].data_body.to_vec();
        body[..8].copy_from_slice(&(1_i64 << 50).to_le_bytes());
        lies[1].data_body = body.into();
        assert!(counted(&lies).is_err());
    }

    #[test]
    fn dictionaries_count_together() {
        let words = |many: i64| {
            let values = StringArray::from_iter_values((0..many).map(|at| format!("{at:01000}")));
            one(DictionaryArray::new(Int8Array::from(vec![0, 1]), Arc::new(values)))
        };
        let one = messages(words(20), None);
        let dictionary = one.iter().find(|message| message.data_body.len() > 10_000);
        let mut unpacked = Unpacked::default();
        // Replaced again and again, it stays as large as it is.
        if let Some(dictionary) = dictionary {
            (0..10_000).for_each(|_| unpacked.count(dictionary).unwrap());
        }
        assert_eq!(counted(&messages(words(100), None)), Ok(()));
    }

    #[test]
    fn a_batch_that_unfolds_is_handed_on_in_pieces() {
        let text = "x".repeat(1 << 20);
        let keys = Int8Array::from_iter_values((0..100).map(|row| row % 2));
        let values = StringArray::from(vec![text.as_str(), "short"]);
        let batch = one(DictionaryArray::new(keys, Arc::new(values)));
        let pieces: Vec<RecordBatch> = Pieces::of(batch.clone()).unwrap().collect();
        assert!(pieces.len() > 4, "{}", pieces.len());
        assert!(pieces.iter().all(|piece| plain_bytes(piece) <= PIECE_BYTES));
        assert_eq!(concat_batches(&batch.schema(), &pieces).unwrap(), batch);

        let views = StringViewArray::from_iter_values(std::iter::repeat_n(text.as_str(), 20));
        assert!(Pieces::of(one(views)).unwrap().count() > 2);
        assert_eq!(Pieces::of(one(Int64Array::from(vec![1, 2]))).unwrap().count(), 1);
    }

    #[test]
    fn what_unfolds_beyond_measure_is_refused() {
        let text = "x".repeat(1 << 20);
        let keys = Int8Array::from(vec![0; 2_000]);
        let values = StringArray::from(vec![text.as_str()]);
        let refused = Pieces::of(one(DictionaryArray::new(keys, Arc::new(values)))).unwrap_err();
        assert!(refused.contains("send smaller batches"), "{refused}");
        // Rows without anything in them cost something all the same.
        assert!(Pieces::of(one(NullArray::new(1 << 40))).is_err());
    }
}
