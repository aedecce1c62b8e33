//! Which answers are compressed, for clients that ask for it by `Accept-Encoding`.
//!
//! Rows leave as they come: whatever the encoder holds is flushed when the next row is waited for, and an answer that breaks
//! off breaks off compressed as well. Quickly rather than well: most clients sit on the same machine.

use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, NotForContentType, Predicate, SizeAbove};

use super::accept::Format;

/// Below, headers and CPU cost more than bytes: it fits into one packet.
const COMPRESSED_BYTES_MIN: u16 = 1024;

/// See [`layer`].
pub(super) type Worth = And<And<And<SizeAbove, NotForContentType>, NotForContentType>, NotForContentType>;

/// Compresses with zstd and gzip what is worth it: no short answers, no images, no event streams, and no Arrow, whose
/// readers chose it for its speed.
pub(super) fn layer() -> CompressionLayer<Worth> {
    let worth = SizeAbove::new(COMPRESSED_BYTES_MIN)
        .and(NotForContentType::IMAGES)
        .and(NotForContentType::SSE)
        .and(NotForContentType::const_new(Format::Arrow.content_type()));
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth)
}
