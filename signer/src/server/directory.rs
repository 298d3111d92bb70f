//! `ListSeals` and `GetSeal`: which seals there are, to those who may use them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use muhurdar_proto::seal::v1::{self as wire, get_seal_request};
use prost::Message as _;

use super::messages::{read_id, seal_info};
use crate::{
    admission::Caller,
    config::Call,
    pipeline::Pipeline,
    refusal::{Refusal, SealId},
};

/// The most seals on one page, and the default.
const MAX_PAGE: usize = 1000;
/// The most bytes of one: clients take 4 MiB unless they are told otherwise.
const MAX_PAGE_BYTES: usize = 3 << 20;

/// A page of the seals that a caller may use.
pub(super) fn list(
    pipeline: &Pipeline,
    caller: &Caller,
    request: &wire::ListSealsRequest,
) -> Result<wire::ListSealsResponse, Refusal> {
    caller.may(Call::List)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(Place::read(token)?),
    };
    let size = match request.page_size as usize {
        0 => MAX_PAGE,
        n => n.min(MAX_PAGE),
    };
    let (seals, now) = (pipeline.seals.load(), Timestamp::now());
    let after = after.as_ref().map(|place| (place.taxpayer.as_str(), place.id));
    let mut page = wire::ListSealsResponse::default();
    let mut bytes = 0;
    for seal in seals.after(after).filter(|seal| caller.may_use(&seal.taxpayer)) {
        let best = seals.at(&seal.taxpayer, now).is_some_and(|best| best.id() == seal.id());
        // An encryption certificate is no seal; where it is all there is, it says why there is none.
        if !best && seal.certificate.fits_profile().is_err() {
            continue;
        }
        let info = seal_info(seal, best, now);
        bytes += info.encoded_len();
        if let Some(last) = page.seals.last()
            && (page.seals.len() == size || bytes > MAX_PAGE_BYTES)
        {
            page.next_page_token = Place::of(last).write();
            break;
        }
        page.seals.push(info);
    }
    Ok(page)
}

/// One seal, by its id or by whose it is.
pub(super) fn get(
    pipeline: &Pipeline,
    caller: &Caller,
    request: wire::GetSealRequest,
) -> Result<wire::GetSealResponse, Refusal> {
    caller.may(Call::List)?;
    let now = Timestamp::now();
    let seal = match request.seal {
        Some(get_seal_request::Seal::Taxpayer(taxpayer)) => pipeline.look_up(caller, &taxpayer, now)?,
        Some(get_seal_request::Seal::Id(id)) => pipeline.look_up_id(caller, &read_id("id", &id)?)?,
        None => {
            return Err(Refusal::Request {
                field: "seal",
                problem: "is missing: name a taxpayer or an id".to_owned(),
            });
        }
    };
    let seals = pipeline.seals.load();
    let best = seals.at(&seal.taxpayer, now);
    let best = best.is_some_and(|best| best.id() == seal.id());
    Ok(wire::GetSealResponse {
        seal: Some(seal_info(&seal, best, now)),
    })
}

/// The last seal of a page: the next one begins behind it, whatever has come and gone meanwhile.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    taxpayer: String,
    id: SealId,
}

/// Bytes of a token's check sum.
const SUM: usize = 8;

impl Place {
    fn of(seal: &wire::SealInfo) -> Self {
        let id = seal.id[..].try_into().unwrap_or_default();
        Self {
            taxpayer: seal.taxpayer.clone(),
            id,
        }
    }

    /// As a token that nobody has to understand, and that any node can read at any time.
    fn write(&self) -> String {
        let place = [&self.id[..], self.taxpayer.as_bytes()].concat();
        BASE64.encode([&sum(&place)[..], &place].concat())
    }

    fn read(token: &str) -> Result<Self, Refusal> {
        let place = || {
            let bytes = BASE64.decode(token).ok()?;
            let (said, place) = bytes.split_at_checked(SUM)?;
            let (id, taxpayer) = place.split_at_checked(size_of::<SealId>())?;
            (said == sum(place)).then_some(())?;
            Some(Self {
                taxpayer: String::from_utf8(taxpayer.to_vec()).ok()?,
                id: id.try_into().ok()?,
            })
        };
        place().ok_or_else(|| Refusal::Request {
            field: "page_token",
            problem: "is none that this service has given; leave it empty to begin".to_owned(),
        })
    }
}

/// Tells a token from what is none. It keeps nothing secret: a place is what its reader knows anyway.
fn sum(place: &[u8]) -> [u8; SUM] {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[b"ListSeals 1 ", place].concat());
    let mut short = [0; SUM];
    short.copy_from_slice(&sum.as_ref()[..SUM]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_is_read_again_and_nothing_else_is_one() {
        let place = Place {
            taxpayer: "1000000000".to_owned(),
            id: [7; 32],
        };
        let token = place.write();
        assert_eq!(Place::read(&token).unwrap(), place);
        let cut = &token[..token.len() - 4];
        let other = token.replacen(|c: char| c != 'A', "A", 1);
        for none in ["x", "1000000000", "====", cut, &other, &format!("{token}AA")] {
            let refused = Place::read(none);
            assert!(
                matches!(
                    refused,
                    Err(Refusal::Request {
                        field: "page_token",
                        ..
                    })
                ),
                "{none}: {refused:?}"
            );
        }
    }
}
