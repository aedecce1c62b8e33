//! A value that is read again and again: what is to be acted on, and what is to be told, leaves.
//!
//! From files that others write it counts once it was read twice in a row, so that nobody acts on a file that is half
//! written, or on a certificate whose key comes a moment later. What a server answers is whole, and counts at once. What
//! cannot be read is told once.

use ring::digest;

/// SHA-256 of texts, in their order: tells whether they have changed, and keeps none of them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<u8>);

/// See the module.
pub(crate) struct Settled<T> {
    /// What was acted on last.
    current: T,
    /// Another value, read once.
    seen: Option<T>,
    /// Why the last reading failed.
    failing: Option<String>,
    trust: Trust,
}

/// When another value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    AtOnce,
    WhenReadTwice,
}

/// What to do after a reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a, T> {
    Nothing,
    /// Another value than before is there.
    Act(&'a T),
    /// It cannot be read, for a reason that was not told yet.
    Tell(String),
}

impl Fingerprint {
    pub(crate) fn of<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for text in texts {
            // Each by itself, so that what moves from one to the next counts.
            context.update(digest::digest(&digest::SHA256, text.as_ref()).as_ref());
        }
        Self(context.finish().as_ref().to_vec())
    }

    /// In small hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<T: PartialEq> Settled<T> {
    pub(crate) fn new(current: T) -> Self {
        Self { current, seen: None, failing: None, trust: Trust::WhenReadTwice }
    }

    /// Of a source that never shows half a value.
    pub(crate) fn at_once(current: T) -> Self {
        Self { trust: Trust::AtOnce, ..Self::new(current) }
    }

    /// Whether the last reading failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    pub(crate) fn read(&mut self, reading: Result<T, String>) -> Next<'_, T> {
        let value = match reading {
            Ok(value) => value,
            Err(why) => return self.failed(why),
        };
        self.failing = None;
        if value == self.current {
            self.seen = None;
            return Next::Nothing;
        }
        if self.trust == Trust::WhenReadTwice && self.seen.as_ref() != Some(&value) {
            self.seen = Some(value);
            return Next::Nothing;
        }
        self.seen = None;
        self.current = value;
        Next::Act(&self.current)
    }

    fn failed(&mut self, why: String) -> Next<'_, T> {
        self.seen = None;
        if self.failing.as_ref() == Some(&why) {
            return Next::Nothing;
        }
        self.failing = Some(why.clone());
        Next::Tell(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_of_each_text_in_its_place() {
        let of = |texts: &[&str]| Fingerprint::of(texts).hex();
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        for other in [&["b", "a"][..], &["ab"], &["ab", ""], &["a", "b", ""], &[]] {
            assert_ne!(of(&["a", "b"]), of(other), "{other:?}");
        }
        assert_eq!(of(&[]).len(), 64);
    }

    #[test]
    fn a_value_counts_when_it_stays() {
        let mut settled = Settled::new(1);
        let mut read = |value| matches!(settled.read(Ok(value)), Next::Act(acted) if *acted == value);
        let acted = [1, 2, 3, 3, 3, 2, 3, 2, 2].map(&mut read);
        assert_eq!(acted, [false, false, false, true, false, false, false, false, true]);
    }

    #[test]
    fn a_trusted_value_counts_at_once() {
        let mut settled = Settled::at_once(1);
        let mut read = |value| matches!(settled.read(Ok(value)), Next::Act(acted) if *acted == value);
        assert_eq!([1, 2, 3, 3, 2].map(&mut read), [false, true, true, false, true]);
    }

    #[test]
    fn a_failure_is_told_once_and_again_when_it_is_another() {
        let mut settled = Settled::new(1);
        let fail = |why: &str| Err(why.to_owned());
        assert_eq!(settled.read(fail("a")), Next::Tell("a".to_owned()));
        assert_eq!(settled.read(fail("a")), Next::Nothing);
        assert_eq!(settled.read(fail("b")), Next::Tell("b".to_owned()));
        assert_eq!(settled.read(Ok(1)), Next::Nothing);
        assert_eq!(settled.read(fail("b")), Next::Tell("b".to_owned()));
    }

    #[test]
    fn a_failure_between_two_readings_begins_anew() {
        let mut settled = Settled::new(1);
        assert_eq!(settled.read(Ok(2)), Next::Nothing);
        assert_eq!(settled.read(Err("a".to_owned())), Next::Tell("a".to_owned()));
        assert_eq!(settled.read(Ok(2)), Next::Nothing);
        assert_eq!(settled.read(Ok(2)), Next::Act(&2));
    }
}
