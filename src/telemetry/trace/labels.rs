//! What is said of a span: a few words of a few kinds.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// Each kind once, in alphabetical order when the span has ended; as a map where it is serialised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Vec<(&'static str, Cow<'static, str>)>);

impl Labels {
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == key).then_some(value))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_ref()))
    }

    /// The last word of a kind holds.
    pub(super) fn set(&mut self, key: &'static str, value: Cow<'static, str>) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_unstable_by_key(|(key, _)| *key);
        self
    }

    /// About what it takes.
    pub(super) fn bytes(&self) -> usize {
        self.iter().map(|(_, value)| value.len() + size_of::<(&str, Cow<'_, str>)>()).sum()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
