//! Finds the last whole generation in a folder, and leaves the folder tidy.
//!
//! In three steps: look (lock, list, manifests), verify (chunks, side by side), settle (sweep, set aside). Up to the
//! last step nothing is changed, so that an error leaves everything as it was.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::task::{BlockingError, blocking};

use super::super::chunk_id::ChunkId;
use super::files::{ChunkFile, Found, Name, Place};
use super::folder::workers;
use super::io::{self, Io};
use super::manifest::{self, Entry, Manifest};
use super::shelf::{Kept, Shelf};
use super::sums::Sums;
use super::{Chunks, Damage, DiskError, Findings, Mode, Residence, Restored, SOLE_COPY, Settings, codec};

/// Folders of damaged files that are kept, at most.
const EVIDENCE_MAX: usize = 2;

/// EIO, EBADMSG and EUCLEAN on Linux: the disk or the file system found its own data broken.
const MEDIA_ERRORS: [i32; 3] = [5, 74, 117];

/// Bytes read first for a footer; longer ones are read once more.
const TAIL_BYTES: u64 = 64 << 10;

/// What stands in the folder, before its chunks are looked at.
struct Survey {
    place: Arc<Place>,
    found: Vec<Found>,
    /// Newest first; an error says what is wrong with the file.
    manifests: Vec<(u64, Result<Manifest, String>)>,
}

/// A manifest whose chunks are all sound.
struct Sound {
    sequence: u64,
    manifest: Manifest,
    contents: Vec<Content>,
}

/// What a sound chunk's file gave.
#[derive(Clone)]
enum Content {
    Rows(RecordBatch),
    Footer(Arc<ParquetMetaData>),
}

/// What was found about the folder's manifests.
#[derive(Default)]
struct Verdict {
    sound: Option<Sound>,
    /// Manifests that are damaged, or name a damaged file.
    bad: HashSet<u64>,
    findings: Findings,
}

/// Chunks that were looked at: what they gave, or what is wrong with them.
#[derive(Default)]
struct Known(HashMap<Entry, Result<Content, String>>);

/// Why a chunk gave nothing.
enum Flaw {
    /// The file is not what was written.
    Damage(String),
    /// Nothing is known of the file: the disk, or the process, failed.
    Failure(DiskError),
}

/// See [`super::Folder::open`].
pub(super) async fn open(
    io: Arc<dyn Io>,
    settings: Settings,
) -> Result<(Shelf, Option<Restored>, Findings), DiskError> {
    let (folder, mode) = (settings.folder.clone(), settings.mode);
    let survey = blocking("survey folder", move || Survey::take(io, folder, mode)).await??;
    let verdict = judge(&survey, &settings).await?;
    if settings.definition.starts_with(SOLE_COPY)
        && verdict.sound.is_none()
        && !verdict.findings.damage.is_empty()
    {
        let reason = verdict.findings.to_string();
        return Err(DiskError::SoleCopy { folder: settings.folder, reason });
    }
    if settings.mode == Mode::FileUpdate && verdict.sound.is_none() {
        let reason = match verdict.findings.is_empty() {
            true => "it is empty".to_owned(),
            false => verdict.findings.to_string(),
        };
        return Err(DiskError::Absent { folder: settings.folder, reason });
    }
    Ok(blocking("settle folder", move || settle(&survey, settings, verdict)).await?)
}

impl Survey {
    fn take(io: Arc<dyn Io>, folder: PathBuf, mode: Mode) -> Result<Self, DiskError> {
        io.create_folder(&folder).map_err(DiskError::io("create folder", &folder))?;
        let lock = folder.join(Name::Lock.to_string());
        let held = io.lock(&lock).map_err(DiskError::io("lock", &lock))?;
        let Some(held) = held else { return Err(DiskError::Locked { folder }) };
        let place = Place::new(folder, io, held);
        let names = place.io.list(&place.folder).map_err(DiskError::io("list folder", &place.folder))?;
        let found: Vec<Found> = names.iter().filter_map(|name| Found::read(name)).collect();
        let mut sequences: Vec<u64> = found
            .iter()
            .filter_map(|found| match found {
                Found::Whole(Name::Manifest(sequence)) if mode != Mode::FileCreate => Some(*sequence),
                _ => None,
            })
            .collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        let mut manifests = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            manifests.push((sequence, read_manifest(&place, sequence)?));
        }
        Ok(Self { manifests, place, found })
    }

    /// The first number above all that were given in the folder.
    fn next(&self, number: impl Fn(Name) -> Option<u64>) -> u64 {
        let names = self.found.iter().map(|found| match found {
            Found::Whole(name) | Found::Temporary(name) => *name,
        });
        names.filter_map(number).max().map_or(1, |last| last.saturating_add(1))
    }
}

fn read_manifest(place: &Place, sequence: u64) -> Result<Result<Manifest, String>, DiskError> {
    let path = place.path(Name::Manifest(sequence));
    let mut content = Vec::new();
    let read = place.io.open(&path).and_then(|file| {
        // One byte more than allowed tells too long a file from one that just fits.
        file.content.take(manifest::BYTES_MAX as u64 + 1).read_to_end(&mut content)
    });
    match read {
        Ok(_) => Ok(Manifest::decode(&content)),
        Err(error) => match flaw_of("read", &path, error) {
            Flaw::Damage(what) => Ok(Err(what)),
            Flaw::Failure(error) => Err(error),
        },
    }
}

/// Looks for the newest manifest of this definition whose chunks are all whole; what is passed over is told.
async fn judge(survey: &Survey, settings: &Settings) -> Result<Verdict, DiskError> {
    let mut verdict = Verdict::default();
    // What generations share is verified once.
    let mut known = Known::default();
    for (sequence, manifest) in &survey.manifests {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(what) => {
                verdict.damaged(*sequence, survey.place.path(Name::Manifest(*sequence)), what.clone());
                continue;
            }
        };
        if !is_served(manifest, settings) {
            refuse_sole_copy(manifest, settings)?;
            verdict.findings.other_definition = true;
            continue;
        }
        fits(manifest, settings)?;
        known.verify(&survey.place, settings.residence, manifest).await?;
        match known.contents(manifest) {
            Ok(contents) => {
                verdict.sound = Some(Sound { sequence: *sequence, manifest: manifest.clone(), contents });
                verdict.findings.other_definition = false;
                break;
            }
            Err(flaws) => {
                for (file, what) in flaws {
                    verdict.damaged(*sequence, survey.place.path(Name::Chunk(file)), what);
                }
            }
        }
    }
    Ok(verdict)
}

fn is_served(manifest: &Manifest, settings: &Settings) -> bool {
    manifest.definition == settings.definition || Some(&manifest.definition) == settings.adopts.as_ref()
}

/// # Errors
/// [`DiskError::SoleCopy`] where the next commit would replace rows that exist nowhere else.
fn refuse_sole_copy(manifest: &Manifest, settings: &Settings) -> Result<(), DiskError> {
    let has_rows = manifest.chunks.iter().any(|entry| entry.rows > 0);
    match manifest.definition.strip_prefix(SOLE_COPY) {
        Some(was) if has_rows => {
            let is = settings.definition.strip_prefix(SOLE_COPY);
            let reason = match is {
                Some(is) => format!("they were written to a dataset with {was}, and it has {is} now"),
                None => "the dataset was `access: read_write`, and is not any more".to_owned(),
            };
            Err(DiskError::SoleCopy { folder: settings.folder.clone(), reason })
        }
        _ => Ok(()),
    }
}

fn fits(manifest: &Manifest, settings: &Settings) -> Result<(), DiskError> {
    let needed = manifest.memory();
    match settings.memory_bytes_max {
        Some(limit) if settings.residence == Residence::Memory && needed > limit => {
            Err(DiskError::Memory { folder: settings.folder.clone(), needed, limit })
        }
        _ => Ok(()),
    }
}

impl Verdict {
    fn damaged(&mut self, sequence: u64, file: PathBuf, what: String) {
        self.bad.insert(sequence);
        let damage = Damage { file, what };
        if !self.findings.damage.contains(&damage) {
            self.findings.damage.push(damage);
        }
    }
}

impl Known {
    /// Verifies the chunks of `manifest` that were not looked at yet, some at a time.
    ///
    /// # Errors
    /// The disk or the process failed; damage is no error but knowledge.
    async fn verify(
        &mut self,
        place: &Arc<Place>,
        residence: Residence,
        manifest: &Manifest,
    ) -> Result<(), DiskError> {
        let unknown: Vec<Entry> =
            manifest.chunks.iter().filter(|entry| !self.0.contains_key(*entry)).cloned().collect();
        let mut verified = futures::stream::iter(unknown)
            .map(|entry| verify_chunk(Arc::clone(place), entry, Arc::clone(&manifest.schema), residence))
            .buffered(workers());
        while let Some(chunk) = verified.next().await {
            let (entry, content) = chunk?;
            self.0.insert(entry, content);
        }
        Ok(())
    }

    /// What all chunks of a verified manifest gave, or the numbers of the damaged files and what is wrong.
    fn contents(&self, manifest: &Manifest) -> Result<Vec<Content>, Vec<(u64, String)>> {
        let mut contents = Vec::with_capacity(manifest.chunks.len());
        let mut flaws = Vec::new();
        for entry in &manifest.chunks {
            match self.0.get(entry) {
                Some(Ok(content)) => contents.push(content.clone()),
                Some(Err(what)) => flaws.push((entry.file, what.clone())),
                None => flaws.push((entry.file, "was not verified".to_owned())),
            }
        }
        if flaws.is_empty() { Ok(contents) } else { Err(flaws) }
    }
}

async fn verify_chunk(
    place: Arc<Place>,
    entry: Entry,
    schema: SchemaRef,
    residence: Residence,
) -> Result<(Entry, Result<Content, String>), DiskError> {
    let work = {
        let entry = entry.clone();
        move || read_chunk(&place, &entry, &schema, residence)
    };
    let content = match blocking("verify chunk", work).await {
        Ok(Ok(content)) => Ok(content),
        Ok(Err(Flaw::Damage(what))) => Err(what),
        Ok(Err(Flaw::Failure(error))) => return Err(error),
        // A decoder that panics was given bytes that no writer made.
        Err(BlockingError::Panicked { message, .. }) => Err(message),
        Err(error @ BlockingError::Stopped { .. }) => return Err(error.into()),
    };
    Ok((entry, content))
}

fn read_chunk(
    place: &Place,
    entry: &Entry,
    schema: &SchemaRef,
    residence: Residence,
) -> Result<Content, Flaw> {
    let path = place.path(Name::Chunk(entry.file));
    let failed = |error| flaw_of("read", &path, error);
    let damage = |error: ParquetError| Flaw::Damage(error.to_string());
    let mut file = place.io.open(&path).map_err(failed)?;
    if file.bytes != entry.bytes {
        return Err(Flaw::Damage(format!("{} bytes instead of {}", file.bytes, entry.bytes)));
    }
    match residence {
        Residence::Memory => {
            let mut content = Vec::with_capacity(usize::try_from(entry.bytes).unwrap_or_default());
            file.content.take(entry.bytes).read_to_end(&mut content).map_err(failed)?;
            compare(&Sums::of(&content), entry)?;
            Ok(Content::Rows(codec::decode(content.into(), schema, entry.rows).map_err(damage)?))
        }
        Residence::Files => {
            compare(&Sums::read(&mut file.content, entry.bytes).map_err(failed)?, entry)?;
            let mut tail = tail(&mut file, TAIL_BYTES).map_err(failed)?;
            let needed = codec::footer_bytes(&tail).map_err(damage)?;
            if needed > tail.len() {
                tail = self::tail(&mut file, needed as u64).map_err(failed)?;
            }
            Ok(Content::Footer(codec::footer(&tail, schema, entry.rows).map_err(damage)?))
        }
    }
}

/// The rows of a chunk's file, verified.
///
/// # Errors
/// [`DiskError::Damaged`], or the disk's failure.
pub(super) fn rows_of(file: &ChunkFile) -> Result<RecordBatch, DiskError> {
    let damaged = |what: String| DiskError::Damaged(Damage { file: file.path(), what });
    match read_chunk(&file.place, &file.entry, &file.schema, Residence::Memory) {
        Ok(Content::Rows(batch)) => Ok(batch),
        Ok(Content::Footer(_)) => Err(damaged("only its footer was read".to_owned())),
        Err(Flaw::Damage(what)) => Err(damaged(what)),
        Err(Flaw::Failure(error)) => Err(error),
    }
}

fn compare(found: &Sums, entry: &Entry) -> Result<(), Flaw> {
    match found.whole == entry.crc32 && found.blocks == entry.blocks {
        true => Ok(()),
        false => {
            Err(Flaw::Damage(format!("its CRC-32 is {:08x} instead of {:08x}", found.whole, entry.crc32)))
        }
    }
}

/// The last bytes of a file, `bytes` of them where it has as many.
fn tail(file: &mut io::Opened, bytes: u64) -> std::io::Result<Vec<u8>> {
    file.content.seek(SeekFrom::Start(file.bytes.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.content.by_ref().take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

/// A failure that speaks of the file is damage; one that speaks of the process or its rights (too many open files, no
/// permission) says nothing of the file.
fn flaw_of(doing: &'static str, path: &Path, error: std::io::Error) -> Flaw {
    let of_the_disk = error.raw_os_error().is_some_and(|code| MEDIA_ERRORS.contains(&code));
    match error.kind() {
        ErrorKind::NotFound => Flaw::Damage("it is missing".to_owned()),
        ErrorKind::UnexpectedEof | ErrorKind::IsADirectory => Flaw::Damage(error.to_string()),
        _ if of_the_disk => Flaw::Damage(error.to_string()),
        _ => Flaw::Failure(DiskError::io(doing, path)(error)),
    }
}

/// The folder's state from the verdict; what is not needed goes, or is set aside where damage was found.
fn settle(survey: &Survey, settings: Settings, verdict: Verdict) -> (Shelf, Option<Restored>, Findings) {
    let spare = spare(survey, &verdict);
    let mut shelf = Shelf {
        place: Arc::clone(&survey.place),
        definition: settings.definition,
        current: None,
        others: Vec::new(),
        files: HashMap::new(),
        ids: HashMap::new(),
        next_manifest: survey
            .next(|name| if let Name::Manifest(number) = name { Some(number) } else { None }),
        next_chunk: survey.next(|name| if let Name::Chunk(number) = name { Some(number) } else { None }),
        served: Arc::new(ArcSwapOption::empty()),
    };
    if let Some((sequence, manifest)) = spare {
        let files = manifest.chunks.iter().map(|entry| shelf.add(entry, &manifest.schema, None)).collect();
        shelf.others.push(Kept { sequence, files });
    }
    let restored = verdict.sound.map(|sound| restore(&mut shelf, sound));
    let mut findings = verdict.findings;
    tidy(survey, &shelf, &mut findings);
    (shelf, restored, findings)
}

/// The newest manifest besides the sound one that may still be whole.
fn spare<'a>(survey: &'a Survey, verdict: &Verdict) -> Option<(u64, &'a Manifest)> {
    let served = verdict.sound.as_ref().map(|sound| sound.sequence);
    let here = |entry: &Entry| survey.found.contains(&Found::Whole(Name::Chunk(entry.file)));
    survey
        .manifests
        .iter()
        .filter(|(sequence, _)| Some(*sequence) != served && !verdict.bad.contains(sequence))
        .filter_map(|(sequence, manifest)| Some((*sequence, manifest.as_ref().ok()?)))
        .find(|(_, manifest)| manifest.chunks.iter().all(here))
}

fn restore(shelf: &mut Shelf, sound: Sound) -> Restored {
    let Sound { sequence, manifest, contents } = sound;
    let mut rows = Vec::new();
    let mut ids = Vec::with_capacity(contents.len());
    let mut files = Vec::with_capacity(contents.len());
    for (entry, content) in manifest.chunks.iter().zip(contents) {
        let id = ChunkId::fresh();
        let footer = match content {
            Content::Rows(batch) => {
                rows.push((id, batch));
                None
            }
            Content::Footer(footer) => Some(footer),
        };
        let file = shelf.add(entry, &manifest.schema, footer);
        shelf.ids.insert(id, file);
        ids.push(id);
        files.push(file);
    }
    shelf.serve(&manifest.schema, &files);
    shelf.current = Some(Kept { sequence, files });
    Restored {
        number: manifest.number,
        watermark: manifest.watermark,
        resume: manifest.resume,
        rows: manifest.chunks.iter().map(|entry| entry.rows).sum(),
        chunks: if rows.len() == ids.len() { Chunks::Memory(rows) } else { Chunks::Files(ids) },
        schema: manifest.schema,
    }
}

/// Removes manifests, chunks and temporary files that the shelf does not know: leftovers of a kill. Where damage was
/// found they are evidence, and set aside.
fn tidy(survey: &Survey, shelf: &Shelf, findings: &mut Findings) {
    let known: HashSet<Name> = shelf.names();
    let place = &survey.place;
    let mut loose: Vec<Name> = Vec::new();
    for found in &survey.found {
        match found {
            Found::Temporary(name) => drop(place.clear(&place.temporary(*name))),
            Found::Whole(name @ (Name::Manifest(_) | Name::Chunk(_))) if !known.contains(name) => {
                loose.push(*name)
            }
            Found::Whole(_) => {}
        }
    }
    // Manifests go first: one that is left never names files that are gone.
    loose.sort_by_key(|name| matches!(name, Name::Chunk(_)));
    if findings.damage.is_empty() {
        for name in &loose {
            place.clear(&place.path(*name));
        }
    } else {
        findings.evidence = set_aside(survey, &loose);
    }
}

/// Moves files into a folder of their own, of which the last [`EVIDENCE_MAX`] are kept. None: it could not be made.
fn set_aside(survey: &Survey, names: &[Name]) -> Option<PathBuf> {
    let place = &survey.place;
    let number = survey.next(|name| if let Name::Evidence(number) = name { Some(number) } else { None });
    let evidence = place.path(Name::Evidence(number));
    let warn = |error: std::io::Error, path: &Path| {
        tracing::warn!(file = %path.display(), %error, "cannot set a damaged file of an acceleration aside");
    };
    place.io.create_folder(&evidence).map_err(|error| warn(error, &evidence)).ok()?;
    for name in names {
        let path = place.path(*name);
        if let Err(error) = place.io.rename(&path, &evidence.join(name.to_string())) {
            warn(error, &path);
        }
    }
    let mut older: Vec<u64> = survey
        .found
        .iter()
        .filter_map(
            |found| if let Found::Whole(Name::Evidence(number)) = found { Some(*number) } else { None },
        )
        .collect();
    older.sort_unstable_by(|a, b| b.cmp(a));
    for number in older.into_iter().skip(EVIDENCE_MAX - 1) {
        let path = place.path(Name::Evidence(number));
        if let Err(error) = place.io.remove_folder(&path) {
            warn(error, &path);
        }
    }
    Some(evidence)
}
