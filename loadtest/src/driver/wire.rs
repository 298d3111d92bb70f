//! Requests as bytes, without building the messages first.
//!
//! A request differs from the next in a few bytes; encoding it through `SealRequest` would copy the document twice. Here it is
//! written straight into gRPC's buffer: protobuf's keys and lengths (Encoding, protobuf.dev), then the document's pieces.
//! A test holds every shape against prost's own encoding of the generated types.

use bytes::BufMut;
use muhurdar_proto::seal::v1::{
    AnswerKind, Priority, SealBatchResponse, SealResponse, SealStreamResponse, SignDigestRequest, SignDigestResponse,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::generator::Document;

/// What every request of a branch has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) priority: Priority,
    pub(super) answer: AnswerKind,
}

/// A request on its way out, in the shape of its method.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// `Seal`.
    One(Manner, Document),
    /// `SealStream`: an item with its id.
    Item(u64, Manner, Document),
    /// `SealBatch`.
    Batch(Manner, Vec<Document>),
    /// `SignDigest`, small enough for prost's own encoding.
    Digest(Box<SignDigestRequest>),
}

/// The id of a stream item, as text of a fixed length.
pub(super) fn id_text(id: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (index, place) in text.iter_mut().enumerate() {
        *place = b"0123456789abcdef"[(id >> (60 - 4 * index) & 15) as usize];
    }
    text
}

/// The number back from [`id_text`]; None for what this harness did not send.
pub(super) fn id_of(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn field_len(tag_len: usize, len: usize) -> usize {
    tag_len + encoded_len_varint(len as u64) + len
}

fn options_len(manner: Manner) -> usize {
    // All field numbers are below 16, all values below 128: each is a byte.
    2 * usize::from(manner.priority as i32 != 0) + 2 * usize::from(manner.answer as i32 != 0)
}

fn request_len(manner: Manner, document: &Document) -> usize {
    field_len(1, document.taxpayer().len()) + field_len(1, document.len()) + field_len(1, options_len(manner))
}

fn put_request(manner: Manner, document: &Document, out: &mut impl BufMut) {
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(document.taxpayer().len() as u64, out);
    out.put_slice(document.taxpayer().as_bytes());
    encode_key(2, WireType::LengthDelimited, out);
    encode_varint(document.len() as u64, out);
    document.write(out);
    encode_key(3, WireType::LengthDelimited, out);
    encode_varint(options_len(manner) as u64, out);
    for (tag, value) in [(2, manner.priority as i32), (3, manner.answer as i32)] {
        if value != 0 {
            encode_key(tag, WireType::Varint, out);
            encode_varint(value.unsigned_abs().into(), out);
        }
    }
}

impl Outgoing {
    fn put(&self, out: &mut impl BufMut) {
        match self {
            Self::One(manner, document) => put_request(*manner, document, out),
            Self::Item(id, manner, document) => {
                encode_key(1, WireType::LengthDelimited, out);
                encode_varint(16, out);
                out.put_slice(&id_text(*id));
                encode_key(2, WireType::LengthDelimited, out);
                encode_varint(request_len(*manner, document) as u64, out);
                put_request(*manner, document, out);
            }
            Self::Batch(manner, documents) => {
                for document in documents {
                    encode_key(1, WireType::LengthDelimited, out);
                    encode_varint(request_len(*manner, document) as u64, out);
                    put_request(*manner, document, out);
                }
            }
            Self::Digest(request) => request.encode_raw(out),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(manner, document) => request_len(*manner, document),
            Self::Item(_, manner, document) => 18 + field_len(1, request_len(*manner, document)),
            Self::Batch(manner, documents) => documents
                .iter()
                .map(|document| field_len(1, request_len(*manner, document)))
                .sum(),
            Self::Digest(request) => request.encoded_len(),
        }
    }
}

/// gRPC's codec of [`Outgoing`] and an answer type.
#[derive(Debug)]
pub(super) struct Wire<A>(std::marker::PhantomData<fn() -> A>);

impl<A> Default for Wire<A> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

/// The answers of the methods.
pub(super) trait AnswerMessage: Message + Default + Send + 'static {}
impl AnswerMessage for SealResponse {}
impl AnswerMessage for SealStreamResponse {}
impl AnswerMessage for SealBatchResponse {}
impl AnswerMessage for SignDigestResponse {}

impl<A: AnswerMessage> Codec for Wire<A> {
    type Encode = Outgoing;
    type Decode = A;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<A: AnswerMessage> Encoder for Wire<A> {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        item.put(out);
        Ok(())
    }
}

impl<A: AnswerMessage> Decoder for Wire<A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        A::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer is not protobuf: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use muhurdar_proto::seal::v1::{SealBatchRequest, SealOptions, SealRequest, SealStreamRequest};

    use super::*;
    use crate::generator::{Generator, Kind, Taxpayer, TaxpayerMix, Workload};

    fn documents(count: usize) -> Vec<Document> {
        let taxpayer = Taxpayer {
            number: "1234567890".into(),
            certificate: None,
        };
        let workload = Workload {
            kinds: Kind::ALL.to_vec(),
            sizes: "6k,20k".parse().unwrap(),
            taxpayers: TaxpayerMix::new(vec![taxpayer], 0.0).unwrap(),
            seed: 3,
            issue_date: jiff::civil::date(2026, 11, 21),
            given: None,
        };
        let mut generator = Generator::new(workload, 0, 1);
        (0..count).map(|_| generator.document()).collect()
    }

    fn message(manner: Manner, document: &Document) -> SealRequest {
        SealRequest {
            taxpayer: document.taxpayer().to_owned(),
            document: Bytes::from(document.to_vec()),
            options: Some(SealOptions {
                priority: manner.priority.into(),
                answer: manner.answer.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn every_shape_is_the_bytes_that_prost_would_write() {
        let documents = documents(8);
        for manner in [
            Manner {
                priority: Priority::Unspecified,
                answer: AnswerKind::Unspecified,
            },
            Manner {
                priority: Priority::Bulk,
                answer: AnswerKind::Patch,
            },
        ] {
            let one = message(manner, &documents[0]);
            let item = SealStreamRequest {
                id: "00000000deadbeef".into(),
                request: Some(message(manner, &documents[1])),
            };
            let batch = SealBatchRequest {
                items: documents.iter().map(|d| message(manner, d)).collect(),
            };
            for (ours, theirs) in [
                (Outgoing::One(manner, documents[0].clone()), one.encode_to_vec()),
                (
                    Outgoing::Item(0xdead_beef, manner, documents[1].clone()),
                    item.encode_to_vec(),
                ),
                (Outgoing::Batch(manner, documents.clone()), batch.encode_to_vec()),
            ] {
                let mut bytes = Vec::new();
                ours.put(&mut bytes);
                assert_eq!(bytes.len(), ours.len());
                assert_eq!(bytes, theirs);
            }
        }
    }

    #[test]
    fn an_id_comes_back_as_it_went() {
        for id in [0, 1, 0xdead_beef_0000_0001, u64::MAX] {
            assert_eq!(id_of(std::str::from_utf8(&id_text(id)).unwrap()), Some(id));
        }
        assert_eq!(id_of("17"), None);
        assert_eq!(id_of("zzzzzzzzzzzzzzzz"), None);
    }
}
