//! Bytes flipped, cut or lost anywhere: an older whole generation or a told error, never a wrong row.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::runtime::{Builder, Runtime};

use super::sim::Sim;
use super::*;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).build().unwrap());

/// The second last and the last generation; they share a chunk.
static TWO: LazyLock<[Vec<(ChunkId, RecordBatch)>; 2]> = LazyLock::new(|| {
    let (one, two, three) = (chunk(0, 300), chunk(300, 400), chunk(400, 500));
    [vec![one.clone(), two], vec![one, three]]
});

static FILES: LazyLock<BTreeMap<PathBuf, Vec<u8>>> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let sim = Sim::with_files([].into());
        let mut folder = open(&sim, Residence::Memory).await.unwrap().folder;
        for (number, generation) in TWO.iter().enumerate() {
            folder.commit(commit(number as u64), generation.clone()).await.unwrap();
        }
        sim.files()
    })
});

async fn open(sim: &Arc<Sim>, residence: Residence) -> Result<Opened, DiskError> {
    let settings = Settings { residence, ..settings(Path::new("/data")) };
    Folder::open_on(Arc::<Sim>::clone(sim) as _, settings).await
}

#[derive(Debug, Clone)]
enum Harm {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Zero,
    Lose,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, flip)| Harm::Flip(at, flip)),
        2 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Harm::Append),
        1 => Just(Harm::Zero),
        1 => Just(Harm::Lose),
    ]
}

fn hurt(content: &[u8], harm: &Harm) -> Option<Vec<u8>> {
    let mut content = content.to_vec();
    match harm {
        Harm::Flip(at, flip) => {
            let at = at.index(content.len());
            content[at] ^= flip;
        }
        Harm::Cut(at) => content.truncate(at.index(content.len())),
        Harm::Append(more) => content.extend(more),
        Harm::Zero => content.fill(0),
        Harm::Lose => return None,
    }
    Some(content)
}

/// Rows of a scan over the table's files; an error is as good an answer, other rows are not.
async fn scanned(opened: &Opened) -> Result<Vec<RecordBatch>, datafusion::error::DataFusionError> {
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("t", Arc::new(opened.folder.table(schema())))?;
    context.sql("SELECT * FROM t ORDER BY id").await?.collect().await
}

fn joined(batches: &[RecordBatch]) -> RecordBatch {
    arrow::compute::concat_batches(&schema(), batches).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(4),
        failure_persistence: None,
        ..ProptestConfig::with_cases(if std::env::var_os("SIDEWING_LONG").is_some() { 5_000 } else { 300 })
    })]

    #[test]
    fn damage_is_told_or_passed_over(
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..3),
        on_files in any::<bool>(),
    ) {
        let mut files = FILES.clone();
        for (file, harm) in &harms {
            let Some(path) = files.keys().nth(file.index(files.len().max(1))).cloned() else { continue };
            match hurt(&files[&path], harm) {
                Some(content) => { files.insert(path, content); }
                None => { files.remove(&path); }
            }
        }
        let residence = if on_files { Residence::Files } else { Residence::Memory };
        let harmed = files != *FILES;
        let manifests = files.keys().filter(|path| path.to_string_lossy().contains("manifest")).count();
        RUNTIME.block_on(async {
            let sim = Sim::with_files(files.clone());
            let opened = open(&sim, residence).await.unwrap();
            let told = !opened.findings.damage.is_empty();
            match &opened.restored {
                None => assert!(told || manifests == 0),
                Some(restored) => {
                    let number = usize::try_from(restored.number).unwrap();
                    let found = match residence {
                        Residence::Memory => rows(restored),
                        Residence::Files => scanned(&opened).await.unwrap(),
                    };
                    assert_eq!(joined(&found), joined(&batches(&TWO[number])));
                    // The last one is passed over only with a word, or when its manifest is not there at all.
                    assert!(number == 1 || told || manifests == 1);
                }
            }
            if told {
                // Nothing that was damaged is lost, and the next open finds a tidy folder.
                let kept = sim.names();
                assert!(files.keys().filter(|path| !kept.contains(&path.file_name().unwrap().to_string_lossy().into_owned())).count() == 0);
                assert!(harmed);
                drop(opened);
                let again = open(&sim, residence).await.unwrap();
                assert_eq!(again.findings, Findings::default());
            }
        });
    }

    #[test]
    fn a_file_that_rots_under_a_scan_fails_it(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let files = FILES.clone();
        RUNTIME.block_on(async {
            let sim = Sim::with_files(files);
            let opened = open(&sim, Residence::Files).await.unwrap();
            let path = FILES.keys().find(|path| path.ends_with("chunk-3.parquet")).unwrap();
            sim.put(path, hurt(&FILES[path], &Harm::Flip(at, flip)).unwrap());
            let error = scanned(&opened).await.unwrap_err().to_string();
            assert!(error.contains("chunk-3.parquet") && error.contains("damaged"), "{error}");
        });
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_and_evidence_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for round in 0..4_u64 {
        let mut disk = Folder::open(settings(folder.path())).await.unwrap().folder;
        disk.commit(commit(round), vec![chunk(0, 10)]).await.unwrap();
        drop(disk);
        for name in names(folder.path()) {
            let path = folder.path().join(&name);
            if path.is_file() && name != "lock" {
                let content = std::fs::read(&path).unwrap();
                let harmed = if round == 0 { content[..content.len() / 2].to_vec() } else { b"x".to_vec() };
                std::fs::write(&path, harmed).unwrap();
            }
        }
        let opened = Folder::open(settings(folder.path())).await.unwrap();
        assert!(opened.restored.is_none());
        let text = opened.findings.to_string().replace(&*folder.path().to_string_lossy(), "<folder>");
        said.push(text);
    }
    assert_eq!(names(folder.path()), ["damaged-3", "damaged-4", "lock"]);
    assert_eq!(names(&folder.path().join("damaged-4")), ["chunk-1.parquet", "manifest-1"]);
    insta::assert_debug_snapshot!(said[3]);
    assert!(said[0].contains("is damaged"), "{}", said[0]);
}
