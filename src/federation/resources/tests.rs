//! What the settings of `runtime.query` come to.

use super::*;
use crate::config::{ByteSize, Span, TempDirectory};

fn named(path: &std::path::Path) -> QueryMemory {
    let at = Span { line: 3, column: 5, len: 4 };
    QueryMemory {
        limit: Some(ByteSize::new(64 << 20)),
        temp_directory: Some(TempDirectory { path: path.to_owned(), at }),
        spill_compression: Some(SpillCompression::Zstd),
    }
}

#[test]
fn settings_reach_the_session() {
    let root = tempfile::tempdir().unwrap();
    let resources = Resources::try_new(&named(root.path())).unwrap();
    assert_eq!(resources.memory_limit(), 64 << 20);
    assert!(resources.warning().is_none());
    let config = resources.configure(SessionConfig::new().with_target_partitions(4));
    assert_eq!(config.spill_compression(), Compression::Zstd);
    assert_eq!(config.options().execution.sort_spill_reservation_bytes, 2 << 20);
    let runtime = resources.runtime();
    let file = runtime.disk_manager.create_tmp_file("a test").unwrap();
    assert!(file.path().unwrap().starts_with(root.path()));
    resources.remove_files();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let problem = Resources::try_new(&named(&file)).unwrap_err();
    assert_eq!(problem.code, Some("UnusableTempDirectory"));
    assert_eq!(problem.at.map(|at| at.line), Some(3));
    assert!(problem.message.contains(&*file.to_string_lossy()), "{}", problem.message);
}
