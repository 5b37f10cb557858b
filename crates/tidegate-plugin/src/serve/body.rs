//! The body of a request on its way into a message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

/// In front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Below this it does not matter.
const LARGE: usize = 4096;

/// Hands on the first message's length before the message itself.
///
/// tonic reads a length and then makes room for as much *beside* what it has. A message that came in
/// one frame with its length it would move into twice the memory it needs; told first, it makes room
/// once, and fills it once.
#[derive(Debug)]
pub(crate) struct LengthFirst<B> {
    inner: B,
    /// What came with the length.
    rest: Bytes,
    is_begun: bool,
}

impl<B> LengthFirst<B> {
    /// Of this body.
    pub(crate) fn new(inner: B) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            is_begun: false,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for LengthFirst<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let me = self.get_mut();
        if !me.rest.is_empty() {
            let rest = std::mem::take(&mut me.rest);
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let polled = ready!(Pin::new(&mut me.inner).poll_frame(context));
        if me.is_begun {
            return Poll::Ready(polled);
        }
        me.is_begun = true;
        Poll::Ready(polled.map(|frame| {
            Ok(match frame?.into_data() {
                Ok(mut data) if data.len() >= LARGE => {
                    me.rest = data.split_off(PREFIX);
                    Frame::data(data)
                }
                Ok(data) => Frame::data(data),
                Err(other) => other,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;

    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn lengths(frames: &[usize]) -> Vec<usize> {
        let frames = frames.iter().map(|size| vec![7; *size].into()).collect();
        let mut body = LengthFirst::new(Frames(frames));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut seen = Vec::new();
        while !body.is_end_stream() {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut context) else {
                panic!("it has more");
            };
            seen.push(frame.into_data().unwrap().len());
        }
        seen
    }

    #[test]
    fn the_length_comes_first_and_nothing_is_lost() {
        assert_eq!(lengths(&[1_000_005]), [5, 1_000_000]);
        assert_eq!(lengths(&[16_384, 16_384, 3]), [5, 16_379, 16_384, 3]);
        // Small ones, and a length that comes by itself, are left alone.
        assert_eq!(lengths(&[18]), [18]);
        assert_eq!(lengths(&[5, 1_000_000]), [5, 1_000_000]);
    }
}
