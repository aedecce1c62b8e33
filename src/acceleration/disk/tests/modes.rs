//! Commit, close, open: what comes back, in each mode.

use super::*;

#[tokio::test]
async fn a_commit_comes_back_whole_and_appends_write_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Folder::open(settings(folder.path())).await.unwrap();
    assert!(opened.restored.is_none() && opened.findings.is_empty());
    let mut disk = opened.folder;

    let (one, two, three) = (chunk(0, 10), chunk(10, 15), chunk(15, 16));
    let first = vec![one.clone(), two.clone()];
    disk.commit(commit(1), first.clone()).await.unwrap();
    assert_eq!(names(folder.path()), ["chunk-1.parquet", "chunk-2.parquet", "lock", "manifest-1"]);
    let written = std::fs::metadata(folder.path().join("chunk-1.parquet")).unwrap().modified().unwrap();

    let second = vec![one, two, three.clone()];
    disk.commit(commit(2), second.clone()).await.unwrap();
    let still = std::fs::metadata(folder.path().join("chunk-1.parquet")).unwrap().modified().unwrap();
    assert_eq!(written, still);
    // What only the second last generation held stays until the next commit.
    disk.commit(commit(3), vec![three.clone()]).await.unwrap();
    assert_eq!(
        names(folder.path()),
        ["chunk-1.parquet", "chunk-2.parquet", "chunk-3.parquet", "lock", "manifest-2", "manifest-3"]
    );
    disk.commit(commit(4), vec![three.clone()]).await.unwrap();
    assert_eq!(names(folder.path()), ["chunk-3.parquet", "lock", "manifest-3", "manifest-4"]);
    drop(disk);

    let opened = Folder::open(settings(folder.path())).await.unwrap();
    assert_eq!(opened.findings, Findings::default());
    let restored = opened.restored.unwrap();
    assert_eq!(rows(&restored), batches(&[three]));
    assert_eq!((restored.number, restored.watermark, restored.rows), (4, Some(4_000), 1));
    assert_eq!(restored.resume, commit(4).resume);
    assert_eq!(restored.schema, schema());
}
