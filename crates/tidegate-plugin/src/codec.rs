//! How messages become bytes and bytes messages: prost, with buffers of the size a message has.
//!
//! tonic's own codec begins with 8 KiB for every message in either direction and lets it grow. Most
//! messages of the contract are a tenth of that, and a state record is a hundred times as large.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Room for most messages, so that they are put together in one piece of memory.
const MOST: usize = 256;
/// From here on what a stream has to say is sent before it has said all.
const YIELD: usize = 32 * 1024;

/// Of a method that is asked `Q` and answers `A`, or the other way round in a server.
pub(crate) struct Exact<Q, A>(PhantomData<fn() -> (Q, A)>);

impl<Q, A> Default for Exact<Q, A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q, A> fmt::Debug for Exact<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exact")
    }
}

impl<Q, A> Codec for Exact<Q, A>
where
    Q: Message + Send + 'static,
    A: Message + Default + Send + 'static,
{
    type Encode = Q;
    type Decode = A;
    type Encoder = One<Q>;
    type Decoder = One<A>;

    fn encoder(&mut self) -> One<Q> {
        One(PhantomData)
    }

    fn decoder(&mut self) -> One<A> {
        One(PhantomData)
    }
}

/// One direction.
pub(crate) struct One<M>(PhantomData<fn() -> M>);

impl<M> fmt::Debug for One<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("One")
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(MOST, YIELD)
}

impl<M: Message> Encoder for One<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

impl<M: Message + Default> Decoder for One<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        // An answer nobody can make sense of; gRPC's word for it.
        M::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
