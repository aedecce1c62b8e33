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

async fn filled(folder: &Path) {
    let mut disk = Folder::open(settings(folder)).await.unwrap().folder;
    disk.commit(commit(1), vec![chunk(0, 3)]).await.unwrap();
}

#[tokio::test]
async fn file_create_begins_empty_and_leaves_what_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    for stranger in ["notes.txt", "chunk-01.parquet", "manifest-1.bak"] {
        std::fs::write(folder.path().join(stranger), b"mine").unwrap();
    }
    std::fs::write(folder.path().join("chunk-9.parquet.tmp"), b"left").unwrap();
    let create = Settings { mode: Mode::FileCreate, ..settings(folder.path()) };
    let opened = Folder::open(create).await.unwrap();
    assert!(opened.restored.is_none());
    assert_eq!(names(folder.path()), ["chunk-01.parquet", "lock", "manifest-1.bak", "notes.txt"]);
}

#[tokio::test]
async fn file_update_asks_for_a_generation_and_touches_nothing_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let update = || Settings { mode: Mode::FileUpdate, ..settings(folder.path()) };
    let absent = Folder::open(update()).await.unwrap_err();
    assert!(matches!(&absent, DiskError::Absent { reason, .. } if reason == "it is empty"), "{absent}");
    filled(folder.path()).await;
    assert_eq!(Folder::open(update()).await.unwrap().restored.unwrap().rows, 3);

    std::fs::write(folder.path().join("manifest-1"), b"x\n").unwrap();
    let before = names(folder.path());
    let damaged = Folder::open(update()).await.unwrap_err().to_string();
    assert!(damaged.contains("manifest-1") && damaged.contains("is damaged"), "{damaged}");
    assert_eq!(names(folder.path()), before);
}

#[tokio::test]
async fn another_definition_is_not_served_and_comes_back_until_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let other = || Settings { definition: "from: elsewhere".to_owned(), ..settings(folder.path()) };
    let opened = Folder::open(other()).await.unwrap();
    assert!(opened.restored.is_none() && opened.findings.other_definition);
    assert!(opened.findings.to_string().contains("another definition"));
    drop(opened);
    assert!(Folder::open(settings(folder.path())).await.unwrap().restored.is_some());

    let mut disk = Folder::open(other()).await.unwrap().folder;
    disk.commit(commit(5), vec![chunk(5, 6)]).await.unwrap();
    disk.commit(commit(6), vec![chunk(6, 7)]).await.unwrap();
    drop(disk);
    let opened = Folder::open(settings(folder.path())).await.unwrap();
    assert!(opened.restored.is_none() && opened.findings.other_definition);
}

#[tokio::test]
async fn a_folder_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let first = Folder::open(settings(folder.path())).await.unwrap();
    let second = Folder::open(settings(folder.path())).await.unwrap_err();
    let text = second.to_string().replace(&*folder.path().to_string_lossy(), "<folder>");
    insta::assert_snapshot!(text);
    drop(first);
    Folder::open(settings(folder.path())).await.unwrap();
}

#[tokio::test]
async fn a_generation_beyond_memory_is_refused_with_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let tight = |residence| Settings { memory_bytes_max: Some(10), residence, ..settings(folder.path()) };
    let refused = Folder::open(tight(Residence::Memory)).await.unwrap_err();
    assert!(matches!(refused, DiskError::Memory { needed, limit: 10, .. } if needed > 10), "{refused}");
    let opened = Folder::open(tight(Residence::Files)).await.unwrap();
    assert!(matches!(opened.restored.unwrap().chunks, Chunks::Files(ids) if ids.len() == 1));
}

#[tokio::test]
async fn a_file_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taxi.db");
    std::fs::write(&file, b"x").unwrap();
    let error = Folder::open(settings(&file)).await.unwrap_err().to_string();
    assert!(error.contains("taxi.db") && error.contains("names a folder, not a file"), "{error}");
}

/// A real full disk, where this machine lets us mount one; the simulated one is in `faults`.
#[tokio::test]
async fn a_full_disk_keeps_the_generation_before() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(folder.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        return;
    }
    let mut disk = Folder::open(settings(folder.path())).await.unwrap().folder;
    disk.commit(commit(1), vec![chunk(0, 10)]).await.unwrap();
    let small = (0..40).map(|at| chunk(at * 9_000, (at + 1) * 9_000)).collect();
    let full = disk.commit(commit(2), small).await.unwrap_err().to_string();
    let left = names(folder.path());
    drop(disk);
    let opened = Folder::open(settings(folder.path())).await;
    let restored = opened.map(|opened| opened.restored.map(|restored| restored.rows));
    std::process::Command::new("umount").arg("-l").arg(folder.path()).status().unwrap();
    assert!(full.contains("free space") && full.contains("chunk-"), "{full}");
    assert_eq!(left, ["chunk-1.parquet", "lock", "manifest-1"]);
    assert_eq!(restored.unwrap(), Some(10));
}

#[tokio::test]
async fn the_default_folder_is_made_with_its_parents() {
    let pod = tempfile::tempdir().unwrap();
    let roots = Roots { spicepod: pod.path(), data_dir: None };
    let folder = folder_of(roots, None, &"sales.orders".parse().unwrap());
    filled(&folder).await;
    assert_eq!(
        names(&pod.path().join(".sidewing/data/sales.orders")),
        ["chunk-1.parquet", "lock", "manifest-1"]
    );
}
