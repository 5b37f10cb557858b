//! An answer read piece by piece, for what is too large to hold.

use std::ops::Deref;
use std::time::Duration;

use ::http::StatusCode;
use ::http::header::HeaderMap;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Failure, Http, Request, failure};

/// An answer whose body is still to come. Dropping it closes the connection.
pub struct Streamed {
    answer: reqwest::Response,
    deadline: Instant,
    budget: Duration,
    received_bytes: u64,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streamed")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Sends one request and returns with the head of its answer. The request's budget covers the
    /// whole body; its `limit` is not used, because the caller counts what it keeps.
    pub async fn open(&self, request: Request) -> Result<Streamed, Failure> {
        let budget = request.budget;
        let deadline = Instant::now() + budget;
        let mut answer = self.exchange(request, deadline).await?;
        Ok(Streamed {
            status: answer.status(),
            headers: std::mem::take(answer.headers_mut()),
            answer,
            deadline,
            budget,
            received_bytes: 0,
        })
    }
}

impl Streamed {
    /// The next piece of the body, `None` after the last. An answer that was cut off is a
    /// [`Failure`], never an early end.
    pub async fn chunk(
        &mut self,
        patience: Duration,
    ) -> Result<Option<impl Deref<Target = [u8]> + Send + 'static>, Failure> {
        let status = self.status.as_u16();
        let next = timeout_at(self.deadline, timeout(patience, self.answer.chunk())).await;
        let unfinished = |within| Failure::AnswerUnfinished {
            status,
            received_bytes: self.received_bytes,
            within,
        };
        match next {
            Err(_) => Err(unfinished(self.budget)),
            Ok(Err(_)) => Err(unfinished(patience)),
            Ok(Ok(Err(error))) => Err(failure::inside_answer(&error, status, self.received_bytes)),
            Ok(Ok(Ok(None))) => Ok(None),
            Ok(Ok(Ok(Some(piece)))) => {
                self.received_bytes += piece.len() as u64;
                Ok(Some(piece))
            }
        }
    }
}
