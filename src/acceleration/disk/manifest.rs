//! The list of files that make one generation: bytes in, checked data out, and back.
//!
//! A manifest is a line with its format, length and CRC-32, then JSON. It is written once under a number of its own
//! and never changed. Nothing here touches the disk.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow_ipc::root_as_schema;
use arrow_ipc::writer::DictionaryTracker;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::task::words_of;

/// The largest manifest that is written or read, in bytes: some hundred thousand chunks.
pub(super) const BYTES_MAX: usize = 64 << 20;

/// The first words of the file; the number grows when the format changes.
const FORMAT: &str = "sidewing-generation 1";

/// The longest first line, in bytes.
const HEAD_BYTES_MAX: usize = 64;

/// One generation as it lies on disk.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// The generation's number, as its maker counts.
    pub number: u64,
    /// What the dataset was defined as when this was written; opaque here.
    pub definition: String,
    pub schema: SchemaRef,
    /// Nanoseconds since the epoch.
    pub watermark: Option<i64>,
    /// Where an append stream goes on; opaque here.
    pub resume: Option<Bytes>,
    /// In the order of the table. No file stands twice.
    pub chunks: Vec<Entry>,
}

/// One chunk's file and what must be found in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The number in the file's name.
    pub file: u64,
    pub rows: u64,
    /// The file's length.
    pub bytes: u64,
    /// What the rows take in memory, in bytes.
    pub memory: u64,
    /// Of the whole file.
    pub crc32: u32,
    /// CRC-32 of each block of [`super::sums::BLOCK_BYTES`], little endian, base64.
    #[serde(with = "base64_text")]
    pub blocks: Vec<u8>,
}

/// The JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    number: u64,
    definition: String,
    #[serde(with = "base64_text")]
    schema: Vec<u8>,
    watermark: Option<i64>,
    resume: Option<String>,
    chunks: Vec<Entry>,
}

impl Manifest {
    /// The file's bytes.
    ///
    /// # Errors
    /// Says why it cannot be written as JSON; no value of a manifest is known to cause that.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let schema = bytes_of(&self.schema);
        let body = Body {
            number: self.number,
            definition: self.definition.clone(),
            schema,
            watermark: self.watermark,
            resume: self.resume.as_ref().map(|bytes| STANDARD.encode(bytes)),
            chunks: self.chunks.clone(),
        };
        let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
        let mut file = head(&body).into_bytes();
        file.extend(body);
        Ok(file)
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes, for a person to read. Never panics, whatever they are.
    pub fn decode(file: &[u8]) -> Result<Self, String> {
        if file.len() > BYTES_MAX {
            return Err(format!("{} bytes, above the limit of {BYTES_MAX}", file.len()));
        }
        let end = file.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n').ok_or("no first line")?;
        let (found, body) = file.split_at(end + 1);
        let expected = head(body);
        if found != expected.as_bytes() {
            return Err(format!(
                "its first line says {:?}, its content makes {:?}",
                String::from_utf8_lossy(found).trim_end(),
                expected.trim_end()
            ));
        }
        Self::decode_body(body)
    }

    fn decode_body(body: &[u8]) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let resume = body.resume.map(|text| STANDARD.decode(text)).transpose();
        let mut files = HashSet::new();
        if let Some(twice) = body.chunks.iter().find(|entry| !files.insert(entry.file)) {
            return Err(format!("names file {} twice", twice.file));
        }
        Ok(Self {
            number: body.number,
            definition: body.definition,
            schema: Arc::new(schema_of(&body.schema)?),
            watermark: body.watermark,
            resume: resume.map_err(|error| format!("resume: {error}"))?.map(Bytes::from),
            chunks: body.chunks,
        })
    }

    /// What all rows take in memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, entry| sum.saturating_add(entry.memory))
    }
}

/// The line that goes before `body`.
fn head(body: &[u8]) -> String {
    format!("{FORMAT} {:08x} {}\n", crc32fast::hash(body), body.len())
}

fn bytes_of(schema: &Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(true);
    let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut dictionaries);
    encoder.schema_to_fb(schema).finished_data().to_vec()
}

/// The decoder panics on types it does not know. Bytes that come here have a right CRC, so that only a file made by
/// somebody else can cause it, and that must not end more than itself.
fn schema_of(bytes: &[u8]) -> Result<Schema, String> {
    let root = root_as_schema(bytes).map_err(|error| format!("schema: {error}"))?;
    match catch_unwind(AssertUnwindSafe(|| fb_to_schema(root))) {
        Ok(schema) => Ok(schema),
        Err(panic) => Err(format!("schema: {}", words_of(panic.as_ref()))),
    }
}

/// Bytes as base64 in JSON.
mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn manifest() -> Manifest {
        let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()));
        let fields = vec![
            Field::new("a", DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into()), true)
                .with_metadata([("k".to_owned(), "v".to_owned())].into()),
            Field::new("b", zoned, false),
        ];
        let entry =
            |file| Entry { file, rows: 3, bytes: 900, memory: 512, crc32: 7, blocks: vec![1, 2, 3, 4] };
        Manifest {
            number: 12,
            definition: "from: x\n\"quoted\"".to_owned(),
            schema: Arc::new(Schema::new(fields)),
            watermark: Some(i64::MIN),
            resume: Some(Bytes::from_static(&[0, 255])),
            chunks: vec![entry(4), entry(u64::MAX)],
        }
    }

    #[test]
    fn it_reads_what_it_wrote() {
        let manifest = manifest();
        assert_eq!(Manifest::decode(&manifest.encode().unwrap()), Ok(manifest));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = String::from_utf8(manifest().encode().unwrap()).unwrap();
        let twice = good.split_once('\n').unwrap().1.replace(&u64::MAX.to_string(), "4");
        let sealed = |body: &str| format!("{}{body}", head(body.as_bytes()));
        let cases = [
            String::new(),
            "x".repeat(200),
            good.replace("generation 1", "generation 2"),
            good.replace("quoted", "quotes"),
            good[..good.len() - 1].to_owned(),
            sealed(&twice),
            sealed("{}"),
        ];
        let said: Vec<_> = cases.iter().map(|case| Manifest::decode(case.as_bytes()).unwrap_err()).collect();
        insta::assert_debug_snapshot!(said);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::decode(&bytes).is_err());
            let _ = Manifest::decode_body(&bytes);
        }

        #[test]
        fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut file = manifest().encode().unwrap();
            let at = at.index(file.len());
            file[at] ^= flip;
            prop_assert!(Manifest::decode(&file).is_err());
            // With a checksum to match, as nobody writes it by accident: read or refused, no panic.
            let start = file.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let _ = Manifest::decode_body(&file[start..]);
        }

        #[test]
        fn a_changed_schema_never_panics(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut schema = bytes_of(&manifest().schema);
            let at = at.index(schema.len());
            schema[at] ^= flip;
            let _ = schema_of(&schema);
        }
    }
}
