//! Bodies of requests: whole ones, none too large, none too slow, and no more of them at a time than there is room for.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Refusal;

/// A body comes to its end within this time, so that no client holds its connection, and what it sent so far, for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// All bodies together, those of queries that wait for their turn included.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What room is counted in.
const UNIT_BYTES: usize = 1024;

/// Room for bodies. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bodies(Arc<Semaphore>);

/// A whole body, which takes its room until it is dropped.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / UNIT_BYTES)))
    }
}

impl Bodies {
    /// The whole body.
    ///
    /// # Errors
    /// 413 above `bytes_max`, 408 for one that does not come, 400 for one that breaks off, 503 where there is no room.
    pub(super) async fn read(&self, body: Body, bytes_max: usize) -> Result<Whole, Refusal> {
        match tokio::time::timeout(BODY_TIMEOUT, self.collect(body, bytes_max)).await {
            Ok(read) => read,
            Err(_) => {
                let message = format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "BodyTimeout", message))
            }
        }
    }

    async fn collect(&self, mut body: Body, bytes_max: usize) -> Result<Whole, Refusal> {
        let (mut bytes, mut room) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::bad("BodyUnreadable", "the request body ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > bytes_max {
                let message = format!("the request body is larger than {} KiB", bytes_max / UNIT_BYTES);
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message));
            }
            bytes.extend_from_slice(&data);
            self.take(&mut room, bytes.len())?;
        }
        Ok(Whole { bytes: bytes.freeze(), _room: room })
    }

    /// Makes `room` enough for so many bytes.
    fn take(&self, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Refusal> {
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        // A body is far smaller than what a number of permits can count.
        let more = u32::try_from(bytes.div_ceil(UNIT_BYTES).saturating_sub(held)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let taken = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| {
            let message =
                "the bodies of all requests take the room that there is for them: try again in a moment";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyBodies", message).passing()
        })?;
        match room {
            Some(room) => room.merge(taken),
            None => *room = Some(taken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_taken_while_a_body_lives() {
        let bodies = Bodies(Arc::new(Semaphore::new(3)));
        let read = async |bytes: usize| bodies.read(Body::from(vec![b'x'; bytes]), 10_000).await;
        let first = read(2_000).await.ok().unwrap();
        assert_eq!(first.bytes.len(), 2_000);
        let one = read(1_024).await.ok().unwrap();
        assert!(read(1).await.is_err() && read(0).await.is_ok());
        drop(one);
        assert!(read(1).await.is_ok() && read(1_025).await.is_err());
        drop(first);
        assert!(read(3_072).await.is_ok() && read(3_073).await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_not_read_to_its_end() {
        let endless =
            futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[7; 1_000])));
        assert!(Bodies::default().read(Body::from_stream(endless), 5_000).await.is_err());
    }
}
