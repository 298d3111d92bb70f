//! A document too large for memory: it comes in pieces, is digested as they come, waits on disk for its seal, and goes out in
//! pieces.
//!
//! The engine needs one pass over the input, but the bytes behind the seal's place cannot go out before the signature is
//! there, and of an invoice that is nearly all of them: so the input is spooled, and read once more on its way out. Its
//! pieces are digested beside the queue, since their pace is the caller's; the turn is waited for when all of it is there, with
//! nothing in memory.

mod spool;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use jiff::Timestamp;
use muhurdar_xades::{self as xades, DocumentType, Preparer, Sealing};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{timeout, timeout_at},
};
use uuid::Uuid;

use self::spool::{Spliced, Spool, Spooled};
use super::{Described, Pipeline, Receipt, Rules, measured_by, receipt, right_taxpayer};
use crate::{
    admission::{Admitted, Caller, Errand, LargeShare, Visit},
    config::{Call, Config, Priority},
    outside::Outside,
    refusal::{LATER, Limit, Refusal, SealId},
    seals::Seal,
    trace,
};

/// Bytes of one piece; the wire's limit for a chunk.
pub(crate) const MAX_PIECE: usize = 1 << 20;
/// Pieces between the wire and the digest.
const PIECES: usize = 2;
/// What a caller has to bring in `limits.arrival_timeout`: a kilobyte a second where that is a minute, the line of a branch office
/// on a bad day. A larger document could not come in its time by less.
const TO_SPEAK_OF: usize = 64 << 10;
/// What one large document holds in memory, all together: pieces, a block, the transport's window.
const HELD: usize = 4 << 20;

/// What is kept for large documents.
#[derive(Debug)]
pub(crate) struct Large {
    places: Arc<Semaphore>,
    most: usize,
    folder: PathBuf,
}

impl Large {
    /// As configured.
    ///
    /// # Errors
    /// Where no file can be made in the folder.
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        let folder = config.server.spool_dir.clone().unwrap_or_else(std::env::temp_dir);
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
        Spool::create(&folder).map_err(at)?;
        let most = config.limits.large_in_flight;
        Ok(Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            folder,
        })
    }
}

impl Large {
    /// A place for one document of a client: its own share first, and at most half of all where its quota says nothing.
    fn place(&self, caller: &Caller) -> Result<Place, Refusal> {
        let own = caller.take_large(self.most.div_ceil(2))?;
        let of_all = Arc::clone(&self.places).try_acquire_owned();
        let of_all = of_all.map_err(|_| Refusal::Overloaded {
            limit: Limit::new("large_in_flight", self.most as u64, "large documents in flight"),
            retry_after: LATER,
        })?;
        Ok(Place {
            _of_all: of_all,
            _own: own,
        })
    }
}

/// What a call asks for before its document comes.
#[derive(Debug)]
pub struct LargeRequest {
    /// VKN or TCKN.
    pub taxpayer: String,
    /// What its root must be; none: whatever is found.
    pub expect: Option<DocumentType>,
    /// The certificate that must seal it; none: the one that seals when all of it is there.
    pub certificate: Option<SealId>,
    /// How urgent it is.
    pub priority: Priority,
    /// Its size, where the caller knows it: what is too large is refused at once, what has another size when all of it is there.
    pub size: Option<u64>,
    /// Whether it may have to be known again: [`Whole::sha256`].
    pub identify: bool,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
}

/// A large document on its way in.
#[derive(Debug)]
pub struct Incoming {
    progress: Progress,
    pieces: mpsc::Sender<Piece>,
    reading: JoinHandle<Result<Read, Refusal>>,
    /// Bytes that have come, and whether the reader took all of them.
    come: u64,
    given_up: bool,
    of: Of,
}

/// What belongs to a large document on all of its way.
#[derive(Debug)]
struct Of {
    /// What seals when it begins, and how.
    seal: Arc<Seal>,
    policy: Arc<xades::Policy>,
    rules: Arc<Rules>,
    request: LargeRequest,
    deadline: Instant,
    visit: Visit,
    place: Place,
}

/// A document that was read to its end.
#[derive(Debug)]
struct Read {
    digested: xades::Digested,
    spooled: Spooled,
    sha256: Option<[u8; 32]>,
}

/// A large document all of which is there.
#[derive(Debug)]
pub struct Whole {
    read: Read,
    of: Of,
}

impl Whole {
    /// Of the document as it came, where that was wanted.
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.read.sha256
    }

    /// When the answer is worth nothing any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.of.deadline
    }

    /// What it is.
    #[must_use]
    pub fn document_type(&self) -> DocumentType {
        self.read.digested.document_type()
    }

    /// The sealed document that a seal of earlier gives, with this receipt, put into the place that it was made for.
    #[must_use]
    pub fn sealed_before(self, gives_way: std::ops::Range<u64>, seal: Vec<u8>, receipt: Uuid) -> Outgoing {
        Outgoing {
            receipt,
            spliced: Some(Spliced::new(self.read.spooled, gives_way, seal)),
            patience: self.of.rules.large_patience,
            _admitted: self.of.visit.without_a_turn(),
            _place: self.of.place,
        }
    }
}

/// A place of all, and one of its client's.
#[derive(Debug)]
struct Place {
    _of_all: OwnedSemaphorePermit,
    _own: LargeShare,
}

enum Piece {
    Of(Bytes),
    /// All of them were there.
    End,
}

/// A large document that is sealed, and its bytes.
#[derive(Debug)]
pub struct LargeSealed {
    /// The seal itself and its place.
    pub seal: xades::Seal,
    /// `xades:SigningTime` as written.
    pub signing_time: String,
    /// Who sealed what with which key; none once it was taken.
    pub receipt: Receipt,
    /// The sealed document.
    pub document: Outgoing,
}

/// A sealed document on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// None while a piece is being read.
    spliced: Option<Spliced>,
    /// Its receipt's id.
    receipt: Uuid,
    patience: Duration,
    _admitted: Admitted,
    _place: Place,
}

impl Pipeline {
    /// Lets a large document in.
    ///
    /// # Errors
    /// Every row of the error table that can be told before a byte of it is there.
    pub async fn begin_large(&self, caller: &Caller, request: LargeRequest) -> Result<Incoming, Refusal> {
        let begun = Timestamp::now();
        caller.may(Call::Seal)?;
        let seal = self.seal_of(caller, &request.taxpayer, request.certificate, begun)?;
        let rules = self.rules.load_full();
        let limit = rules.large.bytes;
        if request.size.is_some_and(|size| size > limit) {
            return Err(Refusal::DocumentTooLarge {
                name: "large_document_bytes",
                limit,
                size: request.size,
            });
        }
        let errand = Errand {
            priority: request.priority,
            bytes: HELD,
            deadline: request.deadline,
        };
        let visit = self.door.enter(caller, errand)?;
        let place = self.large.place(caller)?;
        let latest = Instant::now() + rules.large_timeout;
        let deadline = request.deadline.map_or(latest, |d| d.min(latest));

        let (pieces, incoming) = mpsc::channel(PIECES);
        let policy = rules.forms.policy(&caller.name, &request.taxpayer);
        let reader = Reader {
            seal: Arc::clone(&seal),
            policy: Arc::clone(&policy),
            limits: rules.large.clone(),
            expect: request.expect,
            begun,
            identify: request.identify,
        };
        let folder = self.large.folder.clone();
        // A thread that may block: a disk is no place to wait for on the threads of all others.
        let reading = tokio::task::spawn_blocking(move || reader.read(&folder, incoming));
        Ok(Incoming {
            progress: Progress::new(rules.large_patience),
            pieces,
            reading,
            come: 0,
            given_up: false,
            of: Of {
                seal,
                policy,
                rules,
                request,
                deadline,
                visit,
                place,
            },
        })
    }

    /// Seals it, now that all of it is there.
    ///
    /// # Errors
    /// As [`Pipeline::seal`].
    pub async fn finish_large(&self, caller: &Caller, whole: Whole) -> Result<LargeSealed, Refusal> {
        let Whole { read, of } = whole;
        let Read { digested, spooled, .. } = read;
        let Of {
            seal,
            policy,
            rules,
            request,
            deadline,
            visit,
            place,
        } = of;
        let errand = Errand {
            priority: request.priority,
            bytes: 0,
            deadline: Some(deadline),
        };
        let mut admitted = self.door.turn(caller, visit, errand).await?;
        // It may have been minutes on its way: certificate and time are those of its signing.
        let now = Timestamp::now();
        let fresh = self.seal_of(caller, &request.taxpayer, request.certificate, now)?;
        // A successor of another kind seals what comes from now on; this one its predecessor's, while that is good.
        let fits = |seal: &Seal| digested.fits(&seal.certificate, &policy) && seal.usable(now).is_ok();
        let seal = if fits(&fresh) || !fits(&seal) { fresh } else { seal };
        let prepared =
            digested
                .draft(&seal.certificate, &policy, now)
                .map_err(|other| Refusal::CertificateUnusable {
                    taxpayer: Outside::new(&seal.taxpayer),
                    serial: seal.certificate.serial_decimal().to_owned(),
                    id: seal.id(),
                    problem: format!(
                        "it took its predecessor's place while the document was on its way: {other}; send it again"
                    ),
                })?;
        let described = Described::of(&prepared);
        let (token, element) = self.sign(prepared, &seal, &admitted).await?;
        admitted.signed();
        let receipt = Receipt {
            id: trace::request_id(),
            client: Arc::clone(&caller.name),
            used: seal,
            document_type: Some(described.document_type),
            document_id: described.document_id,
            algorithm: described.algorithm,
            token,
            sealed_at: now.into(),
        }
        .issue();
        let range = element.range();
        let spliced = Spliced::new(
            spooled,
            range.start as u64..range.end as u64,
            element.replacement().to_vec(),
        );
        Ok(LargeSealed {
            seal: element,
            signing_time: described.signing_time,
            document: Outgoing {
                spliced: Some(spliced),
                receipt: receipt.id,
                patience: rules.large_patience,
                _admitted: admitted,
                _place: place,
            },
            receipt,
        })
    }
}

impl Incoming {
    /// All of it is there.
    ///
    /// # Errors
    /// What is wrong with the document; ACCESS where the caller may not have it sealed, TAXPAYER_MISMATCH, REQUEST where it has another
    /// size than was said.
    pub async fn whole(self, caller: &Caller) -> Result<Whole, Refusal> {
        // What was cut on its way is no fault of the document's.
        if let Some(said) = self.of.request.size.filter(|said| *said != self.come)
            && !self.given_up
        {
            return Err(other_size(said, self.come));
        }
        // Where the reader has given up, it says why itself.
        drop(self.pieces.send(Piece::End).await);
        let read = self.reading.await.unwrap_or(Err(Refusal::Internal))?;
        let of = self.of;
        caller.may(Call::Seal)?;
        caller.may_have_sealed(read.digested.document_type())?;
        right_taxpayer(read.digested.sealer(), &of.request.taxpayer, of.rules.unnamed_sealer)?;
        Ok(Whole { read, of })
    }

    /// Waits for what comes from the caller, but not for ever.
    ///
    /// # Errors
    /// DEADLINE where it does not come in time, or where next to nothing does.
    pub async fn patience<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        let next = timeout_at(self.of.deadline.into(), self.progress.wait(next));
        let next = next
            .await
            .map_err(|_| Refusal::Deadline("passed while the document was on its way"))?;
        next.ok_or(Refusal::Deadline(
            "passed: less than 64 KiB of the document came in limits.arrival_timeout",
        ))
    }

    /// Takes the next piece; false where the reader has given up, and [`Incoming::whole`] says why.
    ///
    /// # Errors
    /// REQUEST where it is too large.
    pub async fn take(&mut self, piece: Bytes) -> Result<bool, Refusal> {
        if piece.len() > MAX_PIECE {
            return Err(Refusal::Request {
                field: "chunk",
                problem: format!("has {} bytes; at most {MAX_PIECE} are taken at a time", piece.len()),
            });
        }
        self.progress.made(piece.len());
        self.come += piece.len() as u64;
        if let Some(said) = self.of.request.size.filter(|said| *said < self.come) {
            return Err(other_size(said, self.come));
        }
        self.given_up = self.pieces.send(Piece::Of(piece)).await.is_err();
        Ok(!self.given_up)
    }
}

/// How long a caller has been waited for since it last brought something to speak of: a place is not kept for one that drips. The
/// time that this side takes does not count.
#[derive(Debug)]
struct Progress {
    patience: Duration,
    waited: Duration,
    bytes: usize,
}

impl Progress {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// What comes next; none where the patience is at its end.
    async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let since = tokio::time::Instant::now();
        let came = timeout(self.patience.saturating_sub(self.waited), next).await;
        self.waited += since.elapsed();
        came.ok()
    }

    fn made(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= TO_SPEAK_OF {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }
}

impl Outgoing {
    /// The next piece of the sealed document; none at the end.
    ///
    /// # Errors
    /// INTERNAL where the spool fails; the log has the reason.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut spliced = self.spliced.take().ok_or(Refusal::Internal)?;
        let read = tokio::task::spawn_blocking(move || (spliced.piece(), spliced)).await;
        let (piece, spliced) = read.map_err(|_| Refusal::Internal)?;
        self.spliced = Some(spliced);
        piece.map_err(|error| spool_failed(&error))
    }

    /// Hands something to the caller, who may not take for ever.
    ///
    /// # Errors
    /// DEADLINE where it does.
    pub async fn patience<T>(&self, handing: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(self.patience, handing)
            .await
            .map_err(|_| Refusal::Deadline("passed: nothing of the answer was read in limits.arrival_timeout"))
    }

    /// SHA-256 and bytes of all pieces, which the audit log is told too. The document's share of the limits stays with it until it is dropped.
    ///
    /// # Errors
    /// INTERNAL after a failure.
    pub fn sum(&mut self) -> Result<([u8; 32], u64), Refusal> {
        let (sha256, bytes) = self.spliced.take().map(Spliced::end).ok_or(Refusal::Internal)?;
        receipt::handed_out(self.receipt, &sha256, bytes);
        Ok((sha256, bytes))
    }
}

/// Digests and spools what comes in.
struct Reader {
    seal: Arc<Seal>,
    policy: Arc<xades::Policy>,
    limits: xades::Limits,
    expect: Option<DocumentType>,
    begun: Timestamp,
    identify: bool,
}

impl Reader {
    fn read(self, folder: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<Read, Refusal> {
        let mut preparer = Preparer::new(Sealing {
            certificate: &self.seal.certificate,
            policy: &self.policy,
            limits: &self.limits,
            signing_time: self.begun,
            expect: self.expect,
        });
        let failed = |error: io::Error| spool_failed(&error);
        let mut spool = Spool::create(folder).map_err(failed)?;
        let mut sha256 = self.identify.then(|| digest::Context::new(&digest::SHA256));
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Of(piece)) => {
                    preparer
                        .feed(&piece)
                        .map_err(|refusal| measured_by("large_document_bytes", None, refusal))?;
                    if let Some(sha256) = &mut sha256 {
                        sha256.update(&piece);
                    }
                    spool.push(&piece).map_err(failed)?;
                }
                Some(Piece::End) => {
                    return Ok(Read {
                        digested: preparer.digested()?,
                        spooled: spool.finish().map_err(failed)?,
                        sha256: sha256.and_then(|sha256| sha256.finish().as_ref().try_into().ok()),
                    });
                }
                // The caller has gone: nobody reads this.
                None => return Err(Refusal::Internal),
            }
        }
    }
}

fn other_size(said: u64, come: u64) -> Refusal {
    Refusal::Request {
        field: "size",
        problem: format!("says {said} bytes, but {come} have come"),
    }
}

fn spool_failed(error: &io::Error) -> Refusal {
    tracing::error!(%error, "the spool of large documents failed");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Overloaded {
            limit: Limit {
                name: "spool_dir",
                value: None,
                unit: "room for large documents",
            },
            retry_after: LATER,
        },
        _ => Refusal::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_who_drips_is_waited_for_as_long_as_one_who_says_nothing() {
        let second = Duration::from_secs(1);
        let piece = || tokio::time::sleep(second);
        let mut progress = Progress::new(10 * second);
        for _ in 0..3 {
            for _ in 0..9 {
                progress.wait(piece()).await.unwrap();
                // What this side does with it is not held against the caller.
                tokio::time::sleep(60 * second).await;
                progress.made(TO_SPEAK_OF / 9 + 1);
            }
        }
        let mut pieces = 0;
        while progress.wait(piece()).await.is_some() {
            progress.made(1);
            pieces += 1;
        }
        assert!(pieces <= 10, "{pieces}");
    }
}
