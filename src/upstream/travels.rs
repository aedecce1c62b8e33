//! Whether the messages of an answer can be handed on, by the schema message that they begin with.
//!
//! An upstream answers statements of one shape with the same bytes each time: what was found of them is kept.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightData;

use super::fit;
use crate::slots::ByBytes;
use crate::wire;

static KNOWN: ByBytes<Known> = ByBytes::new(16 << 10);

struct Known {
    promised: Option<SchemaRef>,
    travels: Option<SchemaRef>,
}

impl Known {
    fn is_of(&self, promised: Option<&SchemaRef>) -> bool {
        match (&self.promised, promised) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// The schema under which the messages after `first` are handed on; none where it is no schema message, or they are not what
/// was promised, as it travels.
pub(super) fn schema(first: &FlightData, promised: Option<&SchemaRef>) -> Option<SchemaRef> {
    let read = |known: &Known| known.is_of(promised).then(|| known.travels.clone());
    let make = || {
        let found = Schema::try_from(first).ok()?;
        let travels = handed_on(found, promised.map(AsRef::as_ref)).map(Arc::new);
        Some(Known { promised: promised.cloned(), travels })
    };
    KNOWN.recall(&first.data_header, read, make).flatten()
}

fn handed_on(found: Schema, promised: Option<&Schema>) -> Option<Schema> {
    if !wire::can_pass(&found) {
        return None;
    }
    let Some(promised) = promised else { return Some(found) };
    let settled = fit::settled(promised, &found);
    let travels = wire::schema(&settled);
    let is_found = travels.fields().len() == found.fields().len()
        && travels.fields().iter().zip(found.fields()).all(|(promised, found)| {
            promised.name() == found.name() && promised.data_type() == found.data_type()
        });
    is_found.then_some(travels)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::SchemaAsIpc;
    use bytes::Bytes;

    use super::*;

    fn schema_of(name: &str, kind: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(name, kind, true)]))
    }

    fn message(schema: &Schema) -> FlightData {
        SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
    }

    #[test]
    fn what_is_known_of_one_promise_says_nothing_of_another() {
        let found = schema_of("n", DataType::Int64);
        let message = message(&found);
        let promises = [None, Some(schema_of("n", DataType::Int64)), Some(schema_of("m", DataType::Int64))];
        for _ in 0..3 {
            let travels = promises.each_ref().map(|promised| schema(&message, promised.as_ref()));
            assert_eq!(travels, [Some(Arc::clone(&found)), promises[1].clone(), None]);
        }
    }

    #[test]
    fn the_same_bytes_come_to_the_same_schema() {
        let (found, promised) = (schema_of("n", DataType::Utf8), schema_of("n", DataType::Utf8View));
        let both = [(); 2].map(|()| schema(&message(&found), Some(&promised)).unwrap());
        assert!(Arc::ptr_eq(&both[0], &both[1]));
        assert_eq!(both[0], found);
    }

    #[test]
    fn what_is_no_schema_is_not_handed_on() {
        let garbage = FlightData { data_header: Bytes::from_static(b"garbage"), ..FlightData::default() };
        assert_eq!(schema(&garbage, None), None);
        assert_eq!(schema(&FlightData::default(), None), None);
    }
}
