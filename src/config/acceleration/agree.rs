//! What the fields of one dataset must agree in.

use super::super::decode::Decoder;
use super::super::yaml::Node;

/// Collects every contradiction between the fields of a dataset.
pub(super) fn check(_decoder: &mut Decoder<'_>, _item: &Node, _subject: &str) {}
