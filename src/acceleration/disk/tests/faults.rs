//! A kill, a power cut or an error at each step of a table's life: what was committed last is there, whole.

use std::sync::LazyLock;

use super::sim::{EIO, ENOSPC, Fault, Sim};
use super::*;

type Generation = Vec<(ChunkId, RecordBatch)>;

/// A load, an append, a load that shares nothing, an append, an empty table.
static LIFE: LazyLock<Vec<Generation>> = LazyLock::new(|| {
    let (one, two, three, four, five) =
        (chunk(0, 10), chunk(10, 20), chunk(20, 25), chunk(100, 120), chunk(120, 121));
    vec![
        vec![one.clone(), two.clone()],
        vec![one, two, three],
        vec![four.clone()],
        vec![four, five.clone()],
        vec![],
        vec![five],
    ]
});

async fn open(sim: &Arc<Sim>) -> Result<Opened, DiskError> {
    Folder::open_on(Arc::<Sim>::clone(sim) as _, settings(Path::new("/data"))).await
}

/// The generation that `restored` is, by its number in [`LIFE`]; none for an empty folder.
fn which(restored: Option<&Restored>) -> Option<usize> {
    let restored = restored?;
    let number = usize::try_from(restored.number).unwrap();
    assert_eq!(rows(restored), batches(&LIFE[number]), "generation {number}");
    assert_eq!(restored.watermark, commit(restored.number).watermark);
    Some(number)
}

/// Lives until something fails. Answers the last generation whose commit succeeded.
async fn live(folder: &mut Folder, from: usize) -> (Option<usize>, Result<(), DiskError>) {
    let mut last = from.checked_sub(1);
    for (number, generation) in LIFE.iter().enumerate().skip(from) {
        if let Err(error) = folder.commit(commit(number as u64), generation.clone()).await {
            return (last, Err(error));
        }
        last = Some(number);
    }
    (last, Ok(()))
}

#[tokio::test]
async fn a_kill_or_power_cut_at_any_step_leaves_the_last_commit_or_the_one_in_work() {
    for kill in [Fault::KillBefore, Fault::KillAfter] {
        for step in 0.. {
            let sim = Sim::with_files([].into());
            let mut folder = open(&sim).await.unwrap().folder;
            sim.fault_at(step, kill);
            let (last, _) = live(&mut folder, 0).await;
            if !sim.faulted() {
                assert!(step > 30, "only {step} steps");
                break;
            }
            // A killed process leaves all it wrote (no seed); a power cut any part of what was not synced.
            for seed in [None, Some(1), Some(2), Some(3)] {
                let after = match seed {
                    None => Sim::with_files(sim.files()),
                    Some(seed) => sim.crashed(seed),
                };
                let context = format!("{kill:?} at {step}, power cut {seed:?}");
                reopens(&after, last, &context).await;
            }
        }
    }
}

/// Opens after a crash, is killed in that, opens again and goes on.
async fn reopens(sim: &Arc<Sim>, last: Option<usize>, context: &str) {
    let allowed = [last, Some(last.map_or(0, |last| last + 1))];
    for step in 0..3 {
        sim.fault_at(step, Fault::KillAfter);
        let opened = open(sim).await;
        if let Ok(opened) = &opened {
            assert!(allowed.contains(&which(opened.restored.as_ref())), "{context}");
        }
        if !sim.faulted() {
            break;
        }
        let again = sim.crashed(step as u64);
        let opened = open(&again).await.unwrap();
        let found = which(opened.restored.as_ref());
        assert!(allowed.contains(&found), "{context}, again at {step}: {last:?} {found:?}");
        assert_eq!(opened.findings, Findings::default(), "{context}");
    }
    let calm = Sim::with_files(sim.files());
    let opened = open(&calm).await.unwrap();
    assert_eq!(opened.findings, Findings::default(), "{context}");
    let found = which(opened.restored.as_ref());
    assert!(allowed.contains(&found), "{context}: {last:?} {found:?}");
    let mut folder = opened.folder;
    let (end, done) = live(&mut folder, 1).await;
    done.unwrap();
    assert_eq!(end, Some(LIFE.len() - 1), "{context}");
    assert!(calm.names().iter().all(|name| !name.ends_with(".tmp")), "{context}");
}

#[tokio::test]
async fn an_error_at_any_step_names_its_file_leaves_no_litter_and_heals() {
    for code in [ENOSPC, EIO] {
        for step in 0.. {
            let sim = Sim::with_files([].into());
            let mut folder = open(&sim).await.unwrap().folder;
            sim.fault_at(step, Fault::Fail(code));
            let (last, outcome) = live(&mut folder, 0).await;
            if !sim.faulted() {
                break;
            }
            let next = last.map_or(0, |last| last + 1);
            if let Err(error) = outcome {
                let text = error.to_string();
                assert!(text.contains("/data"), "{text}");
                assert_eq!(text.contains("free space"), code == ENOSPC, "{text}");
                assert!(sim.names().iter().all(|name| !name.ends_with(".tmp")), "{step}: {:?}", sim.names());
                // A restart now finds a whole generation: the one before, or this one where only the last sync failed.
                let restart = Sim::with_files(sim.files());
                let opened = open(&restart).await.unwrap();
                let found = which(opened.restored.as_ref());
                assert!([last, Some(next)].contains(&found), "{step}: {last:?} {found:?}");
                assert_eq!(opened.findings, Findings::default());
                // Without a restart the same process goes on.
                let (_, healed) = live(&mut folder, next).await;
                healed.unwrap();
            }
            let end = LIFE.len() - 1;
            let opened = open(&Sim::with_files(sim.files())).await.unwrap();
            assert_eq!(which(opened.restored.as_ref()), Some(end));
            // Only the last two manifests and their chunks.
            folder.commit(commit(end as u64), LIFE[end].clone()).await.unwrap();
            folder.commit(commit(end as u64), LIFE[end].clone()).await.unwrap();
            let left = sim.names();
            let kinds = |prefix: &str| left.iter().filter(|name| name.starts_with(prefix)).count();
            // One file may have refused to go; the next open sweeps it.
            assert!(kinds("manifest-") + kinds("chunk-") <= 4, "{step}: {left:?}");
        }
    }
}

#[tokio::test]
async fn what_was_written_ahead_goes_when_it_is_abandoned() {
    let sim = Sim::with_files([].into());
    let mut folder = open(&sim).await.unwrap().folder;
    let (one, two) = (chunk(0, 10), chunk(10, 20));
    folder.write(one.0, one.1.clone()).await.unwrap();
    folder.seal(commit(0), vec![one.0]).await.unwrap();
    folder.write(two.0, two.1).await.unwrap();
    folder.abandon().await.unwrap();
    assert_eq!(sim.names(), ["chunk-1.parquet", "manifest-1"]);
    let error = folder.seal(commit(1), vec![one.0, two.0]).await.unwrap_err();
    assert!(matches!(error, DiskError::Unwritten { chunk, .. } if chunk == two.0), "{error}");
    let error = folder.seal(commit(1), vec![one.0, one.0]).await.unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    folder.seal(commit(1), vec![one.0]).await.unwrap();
}

#[tokio::test]
async fn a_generation_of_another_schema_than_its_chunks_is_refused() {
    let sim = Sim::with_files([].into());
    let mut folder = open(&sim).await.unwrap().folder;
    let other = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let refused = folder.commit(Commit { schema: other, ..commit(0) }, vec![chunk(0, 2)]).await.unwrap_err();
    assert!(matches!(refused, DiskError::Schema { .. }), "{refused}");
    assert!(sim.names().is_empty(), "{:?}", sim.names());
}
