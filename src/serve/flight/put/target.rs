//! What a DoPut is for: the descriptor of its first message enters, a table and the form of the answer leave.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{CommandStatementIngest, ProstMessageExt, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightDescriptor, PutResult};
use prost::Message;
use tonic::{Code, Status};

use crate::query::{PutError, Writer};
use crate::serve::{Door, status};

use super::super::command;

/// Schema of tables that are named with a catalog alone.
const DEFAULT_SCHEMA: &str = "public";

/// Where rows go, and how the client is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The parts of the table's name.
    path: Vec<String>,
    pub answer: Answer,
    /// What is said where there is no such table.
    creates: bool,
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A PutResult for each advance, with how many rows of the call are stored as JSON: `{"rows":4096}`.
    Advances,
    /// One PutResult at the end, with a Flight SQL DoPutUpdateResult.
    Count,
}

impl Target {
    /// # Errors
    /// INVALID_ARGUMENT, UNIMPLEMENTED or ALREADY_EXISTS in words.
    pub(super) fn of(descriptor: Option<&FlightDescriptor>) -> Result<Self, Status> {
        let Some(descriptor) = descriptor else {
            return Err(invalid("the first message needs a descriptor: PATH with a dataset"));
        };
        match descriptor.r#type() {
            DescriptorType::Path if descriptor.path.is_empty() => {
                Err(invalid("the path is empty: name a dataset"))
            }
            DescriptorType::Path => {
                Ok(Self { path: descriptor.path.clone(), answer: Answer::Advances, creates: false })
            }
            DescriptorType::Cmd => Self::of_command(&descriptor.cmd),
            DescriptorType::Unknown => Err(invalid(
                "the descriptor needs a type: PATH with a dataset, or CMD with a Flight SQL CommandStatementIngest",
            )),
        }
    }

    fn of_command(bytes: &[u8]) -> Result<Self, Status> {
        const INSTEAD: &str = "name a dataset by PATH, or send a Flight SQL CommandStatementIngest";
        let Some(any) = command::flight_sql(bytes) else {
            return Err(Status::unimplemented(format!("this command cannot be put: {INSTEAD}")));
        };
        if any.type_url != CommandStatementIngest::type_url() {
            let name = command::name(&any);
            return Err(Status::unimplemented(format!(
                "DoPut of Flight SQL {name} is not supported: {INSTEAD}"
            )));
        }
        let ingest = CommandStatementIngest::decode(&*any.value)
            .map_err(|_| invalid(&format!("`{}` cannot be decoded", any.type_url)))?;
        let creates = may_create(&ingest)?;
        Ok(Self { path: path(ingest)?, answer: Answer::Count, creates })
    }

    /// # Errors
    /// The dataset is not known, not to be written to, or not here yet.
    pub(super) fn writer(&self, door: &impl Door) -> Result<Writer, Status> {
        door.writer(&self.path).map_err(|error| {
            let mut text = error.to_string();
            if self.creates && matches!(error, PutError::NotWritable { .. }) {
                text.push_str("; a table is not created by writing to it: add a dataset to the spicepod");
            }
            status::told(status::of_put(&error), text)
        })
    }
}

/// Whether a table that is not there is to be created; none is.
///
/// # Errors
/// What the ingest asks for and is not done.
fn may_create(ingest: &CommandStatementIngest) -> Result<bool, Status> {
    if ingest.temporary {
        return Err(Status::unimplemented("temporary tables are not supported: ingest into a dataset"));
    }
    if ingest.transaction_id.is_some() {
        return Err(Status::unimplemented("transactions are not supported: ingest without one"));
    }
    if !ingest.options.is_empty() {
        let mut names: Vec<&str> = ingest.options.keys().map(String::as_str).collect();
        names.sort_unstable();
        let names = names.join(", ");
        return Err(invalid(&format!("options of an ingest that are not known here: {names}")));
    }
    let Some(options) = ingest.table_definition_options else { return Ok(false) };
    match TableExistsOption::try_from(options.if_exists) {
        Ok(TableExistsOption::Append) => {}
        Ok(TableExistsOption::Fail) => {
            let table = &ingest.table;
            return Err(Status::already_exists(format!(
                "if_exists is FAIL, and `{table}` is no table to be created: ingest with if_exists APPEND"
            )));
        }
        Ok(TableExistsOption::Replace) => {
            let what =
                "if_exists REPLACE is not supported: rows are only added; ingest with if_exists APPEND";
            return Err(Status::unimplemented(what));
        }
        Ok(TableExistsOption::Unspecified) | Err(_) => {
            return Err(invalid("if_exists is not specified: ingest with if_exists APPEND"));
        }
    }
    match TableNotExistOption::try_from(options.if_not_exist) {
        Ok(TableNotExistOption::Fail) => Ok(false),
        Ok(TableNotExistOption::Create) => Ok(true),
        Ok(TableNotExistOption::Unspecified) | Err(_) => {
            Err(invalid("if_not_exist is not specified: ingest with if_not_exist FAIL"))
        }
    }
}

fn path(ingest: CommandStatementIngest) -> Result<Vec<String>, Status> {
    if ingest.table.is_empty() {
        return Err(invalid("the ingest names no table"));
    }
    let schema = match (&ingest.catalog, ingest.schema) {
        (Some(_), None) => Some(DEFAULT_SCHEMA.to_owned()),
        (_, schema) => schema,
    };
    Ok(ingest.catalog.into_iter().chain(schema).chain([ingest.table]).collect())
}

impl Answer {
    pub(super) fn message(self, rows: u64) -> PutResult {
        let app_metadata = match self {
            Self::Advances => format!("{{\"rows\":{rows}}}").into(),
            Self::Count => {
                let record_count = i64::try_from(rows).unwrap_or(i64::MAX);
                arrow_flight::sql::DoPutUpdateResult { record_count }.encode_to_vec().into()
            }
        };
        PutResult { app_metadata }
    }
}

fn invalid(message: &str) -> Status {
    status::told(Code::InvalidArgument, message.to_owned())
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::TableDefinitionOptions;
    use proptest::prelude::*;

    use super::*;

    fn ingest() -> CommandStatementIngest {
        let options = TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Append.into(),
        };
        CommandStatementIngest {
            table_definition_options: Some(options),
            table: "t".to_owned(),
            ..CommandStatementIngest::default()
        }
    }

    fn of(command: &CommandStatementIngest) -> Result<Target, Status> {
        Target::of(Some(&FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
    }

    #[test]
    fn tables_are_named_by_path_and_by_ingest() {
        let target = Target::of(Some(&FlightDescriptor::new_path(vec!["s".into(), "t".into()]))).unwrap();
        assert_eq!((target.path.join("."), target.answer), ("s.t".to_owned(), Answer::Advances));
        for (catalog, schema, path) in [
            (None, None, "t"),
            (None, Some("s"), "s.t"),
            (Some("c"), None, "c.public.t"),
            (Some("c"), Some("s"), "c.s.t"),
        ] {
            let (catalog, schema) = (catalog.map(str::to_owned), schema.map(str::to_owned));
            let target = of(&CommandStatementIngest { catalog, schema, ..ingest() }).unwrap();
            assert_eq!((target.path.join(".").as_str(), target.answer), (path, Answer::Count));
        }
        let bare = CommandStatementIngest { table_definition_options: None, ..ingest() };
        assert!(!of(&bare).unwrap().creates);
    }

    #[test]
    fn what_is_not_done_is_refused_in_words() {
        let with = |if_not_exist: i32, if_exists: i32| {
            let options = Some(TableDefinitionOptions { if_not_exist, if_exists });
            CommandStatementIngest { table_definition_options: options, ..ingest() }
        };
        let (append, fail) = (TableExistsOption::Append.into(), TableNotExistOption::Fail.into());
        let commands = [
            with(fail, TableExistsOption::Fail.into()),
            with(fail, TableExistsOption::Replace.into()),
            with(fail, 0),
            with(0, append),
            with(fail, 77),
            CommandStatementIngest { temporary: true, ..ingest() },
            CommandStatementIngest { transaction_id: Some("x".into()), ..ingest() },
            CommandStatementIngest {
                options: [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())].into(),
                ..ingest()
            },
            CommandStatementIngest { table: String::new(), ..ingest() },
        ];
        let query = arrow_flight::sql::CommandStatementUpdate { query: "x".into(), transaction_id: None };
        let descriptors = [
            None,
            Some(FlightDescriptor::default()),
            Some(FlightDescriptor::new_path(Vec::new())),
            Some(FlightDescriptor::new_cmd("select 1")),
            Some(FlightDescriptor::new_cmd(query.as_any().encode_to_vec())),
        ];
        let all = commands.iter().map(of).chain(descriptors.iter().map(|it| Target::of(it.as_ref())));
        let said: Vec<String> = all
            .map(|refused| refused.unwrap_err())
            .map(|it| format!("{:?}: {}", it.code(), it.message()))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
        assert!(of(&with(TableNotExistOption::Create.into(), append)).unwrap().creates);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), after in 0..40_usize) {
            let mut command = ingest().as_any().encode_to_vec();
            command.truncate(command.len().saturating_sub(after));
            command.extend(&bytes);
            for bytes in [bytes, command] {
                let _ = Target::of(Some(&FlightDescriptor::new_cmd(bytes)));
            }
        }
    }
}
