//! What the author's code prints, on its way to the host.
//!
//! Once the handshake line is out, file descriptor 1 is a pipe of our own. A thread empties it, so
//! that printing never blocks the plugin, and keeps the latest megabyte for whoever reads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::launch::{StdioData, stdio_data::Channel};

/// Kept when nobody reads; older text is dropped.
const KEPT: usize = 1 << 20;
/// A message's worth. The launch library of existing hosts sends no more at once.
const PIECE: usize = 1024;

#[derive(Default)]
pub(crate) struct Stdio {
    printed: Mutex<Printed>,
    arrived: Notify,
}

#[derive(Default)]
struct Printed {
    pieces: VecDeque<Bytes>,
    size: usize,
}

impl Stdio {
    fn push(&self, piece: &[u8]) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.size += piece.len();
        printed.pieces.push_back(Bytes::copy_from_slice(piece));
        while printed.size > KEPT
            && let Some(oldest) = printed.pieces.pop_front()
        {
            printed.size -= oldest.len();
        }
        drop(printed);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Bytes> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = printed.pieces.pop_front()?;
        printed.size -= piece.len();
        Some(piece)
    }

    /// The next piece, when there is one. Every piece is delivered once.
    pub(crate) async fn next(&self) -> StdioData {
        loop {
            if let Some(data) = self.pop() {
                return StdioData {
                    channel: Channel::Stdout.into(),
                    data,
                };
            }
            self.arrived.notified().await;
        }
    }
}

/// Puts a pipe in place of stdout. The real stdout stays open, because a host may take its end for
/// the plugin's; the thread lives as long as the process.
#[cfg(unix)]
pub(crate) fn capture(stdio: std::sync::Arc<Stdio>) -> std::io::Result<std::os::fd::OwnedFd> {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    let real = std::io::stdout().as_fd().try_clone_to_owned()?;
    let (mut reader, writer) = std::io::pipe()?;
    rustix::stdio::dup2_stdout(&writer)?;
    std::thread::Builder::new()
        .name("stdio".to_owned())
        .spawn(move || {
            let mut piece = [0; PIECE];
            loop {
                match reader.read(&mut piece) {
                    Ok(0) => break,
                    Ok(read) => stdio.push(&piece[..read]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        })?;
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded_and_the_latest_is_kept() {
        let stdio = Stdio::default();
        for number in 0..3000_u32 {
            let mut piece = [0; PIECE];
            piece[..4].copy_from_slice(&number.to_be_bytes());
            stdio.push(&piece);
        }
        let pieces: Vec<Bytes> = std::iter::from_fn(|| stdio.pop()).collect();
        assert_eq!(pieces.len() * PIECE, KEPT);
        assert_eq!(pieces.last().unwrap()[..4], 2999_u32.to_be_bytes());
        assert!(stdio.pop().is_none());
    }
}
