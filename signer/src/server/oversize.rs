//! Messages that are larger than any may be. They are read past and not kept, but for the little that says whose they are: of an
//! item of a stream its id, of a batch the item that was too much. Protocol Buffers ("Encoding", protobuf.dev) as they come, in pieces of
//! any size.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use muhurdar_proto::seal::v1::SealStreamRequest;
use prost::Message as _;

use crate::{outside::LONGEST, refusal::Refusal};

/// How many times as large as it may be a message is read past. One that is larger ends the call at once.
const WORTH_READING_PAST: u64 = 16;
/// `SealStreamRequest.id`, `SealBatchRequest.items`.
const FIRST_FIELD: u64 = 1;

/// The items of one stream that were read past: which of them, counted from the first, and how large they were. Shared by who reads
/// the bytes and who reads the messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Oversized(Arc<Mutex<VecDeque<(u64, u64)>>>);

impl Oversized {
    fn put(&self, number: u64, size: u64) {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.push_back((number, size));
    }

    /// The size of an item that was too large; none of any other. Asked in the order of the items.
    pub(super) fn size_of(&self, number: u64) -> Option<u64> {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, size) = items.front().copied()?;
        if first != number {
            return None;
        }
        items.pop_front();
        Some(size)
    }
}

/// What becomes of a method's message that is too large.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// The call is refused.
    Call,
    /// The call is refused, and told which item was too much.
    Batch,
    /// The item is refused, and the stream goes on.
    Stream(Oversized),
}

/// A message that is read past.
#[derive(Debug)]
pub(super) struct Past {
    rule: Rule,
    size: u64,
    most: u64,
    come: u64,
    fields: Fields,
    /// Of a stream's item; as much of it as may be told.
    id: Vec<u8>,
    /// Of a batch: items that have begun.
    items: usize,
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Became {
    /// There is more of it.
    More,
    /// This is to be read in its place, behind its prefix.
    Instead(Bytes),
}

impl Past {
    /// One that has announced so many bytes where `most` may come. `number`: which message of its call it is, from 0.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE where nothing more is to be learnt of it.
    pub(super) fn begin(rule: &Rule, number: u64, size: u64, most: u64, compressed: bool) -> Result<Self, Refusal> {
        let past = Self {
            rule: rule.clone(),
            size,
            most,
            come: 0,
            fields: Fields::default(),
            id: Vec::new(),
            items: 0,
        };
        if compressed || size > most.saturating_mul(WORTH_READING_PAST) {
            return Err(past.refusal(None));
        }
        match rule {
            Rule::Call => return Err(past.refusal(None)),
            Rule::Batch => {}
            Rule::Stream(items) => items.put(number, size),
        }
        Ok(past)
    }

    fn refusal(&self, item: Option<usize>) -> Refusal {
        Refusal::MessageTooLarge {
            limit: self.most,
            size: Some(self.size),
            item,
        }
    }

    /// Bytes of it that have not come.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.come
    }

    /// Reads past these, which are no more than are missing.
    ///
    /// # Errors
    /// MESSAGE_TOO_LARGE, where it ends the call.
    pub(super) fn read(&mut self, data: &[u8]) -> Result<Became, Refusal> {
        self.come += data.len() as u64;
        let (id, items, most) = (&mut self.id, &mut self.items, self.most);
        let (mut too_much, of_stream) = (false, matches!(self.rule, Rule::Stream(_)));
        self.fields.read(data, |event| match event {
            Event::Begins {
                field: FIRST_FIELD,
                end,
            } => {
                if too_much {
                    return;
                }
                *items += 1;
                too_much = end > most;
                if of_stream {
                    id.clear();
                }
            }
            // One byte more than may be told, so that it is seen to be too long.
            Event::Holds {
                field: FIRST_FIELD,
                piece,
            } if of_stream => {
                let room = (LONGEST + 1).saturating_sub(id.len());
                id.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            Event::Begins { .. } | Event::Holds { .. } => {}
        });
        match &self.rule {
            Rule::Batch if too_much => Err(self.refusal(self.items.checked_sub(1))),
            Rule::Stream(_) if self.missing() == 0 => Ok(Became::Instead(self.instead())),
            _ if self.missing() == 0 => Err(self.refusal(None)),
            _ => Ok(Became::More),
        }
    }

    /// The item without what was too much of it.
    fn instead(&self) -> Bytes {
        let item = SealStreamRequest {
            id: String::from_utf8_lossy(&self.id).into_owned(),
            request: None,
        };
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        // A few hundred bytes.
        framed.put_u32(u32::try_from(item.encoded_len()).unwrap_or(0));
        framed.extend_from_slice(&item.encode_to_vec());
        framed.freeze()
    }
}

/// Something of a message.
enum Event<'a> {
    /// A field of a length begins, and ends at this byte of the message.
    Begins { field: u64, end: u64 },
    /// The next bytes of it.
    Holds { field: u64, piece: &'a [u8] },
}

/// Walks over the fields of a message, those within them not.
#[derive(Debug, Default)]
struct Fields {
    at: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// A key: field number and wire type.
    Key(Varint),
    /// A value that is a number.
    Number(Varint),
    /// The length of a field.
    Length(u64, Varint),
    /// Bytes of a field, and how many more; those of a fixed width are nobody's.
    Bytes(Option<u64>, u64),
    /// This is no message: nothing more is to be learnt of it.
    Lost,
}

impl Default for Step {
    fn default() -> Self {
        Self::Key(Varint::default())
    }
}

impl Fields {
    fn read(&mut self, mut data: &[u8], mut tell: impl FnMut(Event<'_>)) {
        while let Some(&byte) = data.first() {
            if let Step::Bytes(field, left) = &mut self.step {
                let here = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let (piece, rest) = data.split_at(here);
                if let Some(field) = *field {
                    tell(Event::Holds { field, piece });
                }
                *left -= here as u64;
                self.at += here as u64;
                data = rest;
                if *left == 0 {
                    self.step = Step::default();
                }
                continue;
            }
            data = &data[1..];
            self.at += 1;
            let next = match &mut self.step {
                Step::Key(varint) => varint.push(byte).map(|key| match (key >> 3, key & 7) {
                    (0, _) => Step::Lost,
                    (_, 0) => Step::Number(Varint::default()),
                    (_, 1) => Step::Bytes(None, 8),
                    (field, 2) => Step::Length(field, Varint::default()),
                    (_, 5) => Step::Bytes(None, 4),
                    _ => Step::Lost,
                }),
                Step::Number(varint) => varint.push(byte).map(|_| Step::default()),
                Step::Length(field, varint) => varint.push(byte).map(|length| {
                    let (field, end) = (*field, self.at.saturating_add(length));
                    tell(Event::Begins { field, end });
                    if length == 0 {
                        Step::default()
                    } else {
                        Step::Bytes(Some(field), length)
                    }
                }),
                Step::Bytes(..) | Step::Lost => return,
            };
            if let Some(next) = next {
                self.step = next;
            }
        }
    }
}

/// A number as it comes, byte by byte.
#[derive(Debug, Default)]
struct Varint {
    value: u64,
    bits: u32,
}

impl Varint {
    /// The number, with its last byte.
    fn push(&mut self, byte: u8) -> Option<u64> {
        // What goes beyond 64 bits is no message's; it is read as if it were.
        self.value |= u64::from(byte & 0x7f).checked_shl(self.bits).unwrap_or(0);
        self.bits = self.bits.saturating_add(7);
        (byte & 0x80 == 0).then_some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use muhurdar_proto::seal::v1::{SealBatchRequest, SealOptions, SealRequest};

    use super::*;

    const MOST: u64 = 5000;

    fn request(bytes: usize) -> SealRequest {
        SealRequest {
            taxpayer: "1000000000".to_owned(),
            document: vec![b'x'; bytes].into(),
            options: Some(SealOptions {
                priority: 3,
                ..SealOptions::default()
            }),
            idempotency_key: "k".to_owned(),
            timeout: Some(prost_types::Duration { seconds: 1, nanos: 1 }),
        }
    }

    /// How a message ends that comes in pieces of so many bytes.
    fn read_past(rule: &Rule, message: &[u8], piece: usize) -> Result<Bytes, Refusal> {
        let mut past = Past::begin(rule, 0, message.len() as u64, MOST, false)?;
        for piece in message.chunks(piece) {
            match past.read(piece)? {
                Became::More => {}
                Became::Instead(instead) => {
                    assert_eq!(past.missing(), 0);
                    return Ok(instead);
                }
            }
        }
        panic!("it came to no end")
    }

    #[test]
    fn of_a_streams_item_its_id_is_kept_wherever_it_stands_and_however_it_comes() {
        let item = SealStreamRequest {
            id: "item-7".to_owned(),
            request: Some(request(9000)),
        };
        let encoded = item.encode_to_vec();
        // The same fields, the id behind the request.
        let without = SealStreamRequest {
            id: String::new(),
            ..item.clone()
        };
        let id_alone = SealStreamRequest {
            request: None,
            ..item.clone()
        };
        let last = [without.encode_to_vec(), id_alone.encode_to_vec()].concat();
        for message in [encoded, last] {
            for piece in [1, 2, 3, 7, 1000, usize::MAX] {
                let oversized = Oversized::default();
                let instead = read_past(&Rule::Stream(oversized.clone()), &message, piece).unwrap();
                assert_eq!(instead[..5], [0, 0, 0, 0, 8]);
                assert_eq!(SealStreamRequest::decode(&instead[5..]).unwrap(), id_alone);
                assert_eq!(oversized.size_of(0), Some(message.len() as u64));
                assert_eq!(oversized.size_of(0), None, "it is told once");
            }
        }
    }

    #[test]
    fn an_id_without_end_is_not_kept_without_end() {
        let item = SealStreamRequest {
            id: "x".repeat(10_000),
            request: None,
        };
        let instead = read_past(&Rule::Stream(Oversized::default()), &item.encode_to_vec(), 100).unwrap();
        assert_eq!(SealStreamRequest::decode(&instead[5..]).unwrap().id.len(), LONGEST + 1);
    }

    #[test]
    fn of_a_batch_the_item_is_told_that_was_too_much() {
        let batch = |sizes: &[usize]| {
            let items = sizes.iter().map(|size| request(*size)).collect();
            SealBatchRequest { items }.encode_to_vec()
        };
        for (sizes, expected) in [
            (&[9000][..], 0),
            (&[1000, 1000, 9000, 10], 2),
            (&[1000, 1000, 1000, 1000, 1000, 1000], 4),
        ] {
            for piece in [1, 10, usize::MAX] {
                let refusal = read_past(&Rule::Batch, &batch(sizes), piece).unwrap_err();
                let Refusal::MessageTooLarge { item, limit, .. } = refusal else {
                    panic!("{refusal:?}")
                };
                assert_eq!((item, limit), (Some(expected), MOST), "{sizes:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_read_past_all_the_same() {
        let mut state = 7_u64;
        for length in 5001..5060 {
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .take(length)
            .collect();
            assert!(read_past(&Rule::Stream(Oversized::default()), &noise, 17).is_ok());
            assert!(read_past(&Rule::Batch, &noise, 17).is_err());
        }
    }

    #[test]
    fn what_cannot_be_told_apart_ends_the_call_at_once() {
        let stream = Rule::Stream(Oversized::default());
        assert!(Past::begin(&Rule::Call, 0, MOST + 1, MOST, false).is_err());
        assert!(Past::begin(&stream, 0, MOST + 1, MOST, true).is_err(), "compressed");
        assert!(Past::begin(&stream, 0, MOST * WORTH_READING_PAST + 1, MOST, false).is_err());
    }
}
