//! Statements that were sent whole to an upstream, by their shape: the next one of a shape is sent without planning.
//!
//! It holds as long as the catalog does ([`Federation::catalog_version`]), and belongs to the engine of one configuration.
//! A statement that the upstream then refuses is planned after all.

use std::sync::Arc;

use super::shape::{Shape, Shaped, Template};
use super::statement::parse_one;
use crate::federation::{Federation, Forward, Route};

/// What the shapes take together, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// What a shape takes beside its texts, in bytes.
const KNOWN_BYTES: usize = 512;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shapes(moka::sync::Cache<Shape, Arc<Known>>);

struct Known {
    version: u64,
    /// None where statements of the shape are to be planned.
    sent: Option<Sent>,
}

struct Sent {
    template: Template,
    /// Without its text.
    forward: Forward,
}

impl Shapes {
    pub fn new() -> Self {
        let weigh = |shape: &Shape, known: &Arc<Known>| {
            let template = known.sent.as_ref().map_or(0, |sent| sent.template.bytes());
            u32::try_from(shape.bytes() + template + KNOWN_BYTES).unwrap_or(u32::MAX)
        };
        Self(moka::sync::Cache::builder().max_capacity(BYTES_MAX).weigher(weigh).build())
    }

    /// How a statement is sent, where one of its shape has been sent before.
    pub fn recall(&self, text: &str, version: u64) -> Option<Forward> {
        let shaped = Shaped::of(text)?;
        let known = self.0.get(&shaped.shape).filter(|known| known.version == version)?;
        let Sent { template, forward } = known.sent.as_ref()?;
        Some(Forward { sql: template.filled(&shaped.literals), ..forward.clone() })
    }

    /// Learns how a statement was sent. `version` was read before it was planned.
    pub fn learn(&self, federation: &Federation, text: &str, version: u64, forward: &Forward) {
        let Some(shaped) = Shaped::of(text) else { return };
        if self.0.get(&shaped.shape).is_some_and(|known| known.version == version) {
            return;
        }
        let sent = template(federation, &shaped, forward);
        let sent = sent.map(|template| Sent { template, forward: forward.without_text() });
        self.0.insert(shaped.shape, Arc::new(Known { version, sent }));
    }
}

/// Where the literals stand in what is sent: found by sending, as it were, others in their place. None where what is sent
/// depends on more than their places.
fn template(federation: &Federation, shaped: &Shaped<'_>, forward: &Forward) -> Option<Template> {
    // Its columns are called as the local plan calls them, after the literals in them perhaps.
    if forward.requalified {
        return None;
    }
    let (marked, marks) = shaped.shape.marked();
    let Route::Forward(other) = federation.route(&parse_one(&marked).ok()?) else { return None };
    let template = Template::of(&other.sql, &marks)?;
    let is_sent_so = !other.requalified && template.filled(&shaped.literals) == forward.sql;
    is_sent_so.then_some(template)
}
