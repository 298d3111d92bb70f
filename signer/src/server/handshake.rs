//! Why there was no TLS handshake, in words for those who have to mend it, and in a few kinds for those who count.

use std::{fmt, io, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use rustls_pki_types::UnixTime;

use crate::outside::shown;

/// Bytes of the words.
const MOST: usize = 300;

/// The kinds of handshakes that failed, of which there are no more, whatever a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Kind {
    /// The client's certificate has ended.
    CertificateExpired,
    /// It has not begun.
    CertificateNotYetValid,
    /// It was revoked.
    CertificateRevoked,
    /// Nobody in `server.tls.client_ca` has issued it.
    UnknownAuthority,
    /// It does not do for another reason.
    CertificateRefused,
    /// Neither of the versions that are taken here.
    NoCommonVersion,
    /// No cipher, group, signature algorithm or application protocol that both know.
    NoCommonParameters,
    /// Something else than TLS.
    NotTls,
    /// The client does not take the listener's own certificate.
    ServerUntrusted,
    /// Another alert of the client's.
    Alert,
    /// The client has closed the connection.
    Closed,
    /// It took longer than `server.handshake_timeout`.
    TimedOut,
    /// There were as many connections as there may be, of all or of one client.
    TurnedAway,
    /// What has no name of its own.
    Other,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateRevoked,
        Self::UnknownAuthority,
        Self::CertificateRefused,
        Self::NoCommonVersion,
        Self::NoCommonParameters,
        Self::NotTls,
        Self::ServerUntrusted,
        Self::Alert,
        Self::Closed,
        Self::TimedOut,
        Self::TurnedAway,
        Self::Other,
    ];

    /// The `reason` of its metric.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateRevoked => "certificate_revoked",
            Self::UnknownAuthority => "unknown_authority",
            Self::CertificateRefused => "certificate_refused",
            Self::NoCommonVersion => "no_common_version",
            Self::NoCommonParameters => "no_common_parameters",
            Self::NotTls => "not_tls",
            Self::ServerUntrusted => "server_untrusted",
            Self::Alert => "alert",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::TurnedAway => "turned_away",
            Self::Other => "other",
        }
    }
}

/// One that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    words: String,
}

impl Failure {
    /// By what tokio-rustls says.
    pub(super) fn of(error: &io::Error) -> Self {
        let (kind, words) = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => of_tls(error),
            None => of_io(error),
        };
        // Some errors quote the peer's certificate.
        let words = shown(&words, MOST).into_owned();
        Self { kind, words }
    }

    /// After so long.
    pub(super) fn timed_out(limit: Duration) -> Self {
        Self {
            kind: Kind::TimedOut,
            words: format!("it took longer than {limit:?} (server.handshake_timeout)"),
        }
    }

    /// Writes the line of the log. Who connects and closes without a word is often a probe, and has lines of its own kind: those
    /// of a probe that comes every second must not use up what there is for others.
    pub(super) fn tell(&self, address: SocketAddr) {
        let reason = self.kind.name();
        if self.kind == Kind::Closed {
            tracing::info!(%address, reason, "TLS handshake failed: {self}");
        } else {
            tracing::info!(%address, reason, "TLS handshake failed: {self}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

fn of_io(error: &io::Error) -> (Kind, String) {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
            (Kind::Closed, "the client closed the connection".to_owned())
        }
        _ => (Kind::Other, error.to_string()),
    }
}

fn of_tls(error: &Error) -> (Kind, String) {
    use PeerIncompatible::{SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled};
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            (Kind::NotTls, "the client does not speak TLS".to_owned())
        }
        Error::PeerIncompatible(SupportedVersionsExtensionRequired) => (
            Kind::NoCommonVersion,
            "the client speaks TLS 1.2 only, which is taken where server.tls.allow_tls12 is true".to_owned(),
        ),
        Error::PeerIncompatible(Tls12NotOffered | Tls12NotOfferedOrEnabled) => (
            Kind::NoCommonVersion,
            "the client speaks no version of TLS that is taken here: 1.3, and 1.2 where server.tls.allow_tls12 is true"
                .to_owned(),
        ),
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => (
            Kind::NoCommonParameters,
            format!("nothing in common with the client: {error}"),
        ),
        Error::AlertReceived(alert) => of_alert(*alert),
        _ => (Kind::Other, error.to_string()),
    }
}

fn of_certificate(error: &CertificateError) -> (Kind, String) {
    use CertificateError as Is;
    match error {
        Is::Expired => (
            Kind::CertificateExpired,
            "the client's certificate has ended".to_owned(),
        ),
        Is::ExpiredContext { not_after, .. } => (
            Kind::CertificateExpired,
            format!("the client's certificate has ended at {}", at(*not_after)),
        ),
        Is::NotValidYet => (
            Kind::CertificateNotYetValid,
            "the client's certificate is not valid yet".to_owned(),
        ),
        Is::NotValidYetContext { not_before, .. } => (
            Kind::CertificateNotYetValid,
            format!("the client's certificate is not valid before {}", at(*not_before)),
        ),
        Is::Revoked => (
            Kind::CertificateRevoked,
            "the client's certificate is revoked (server.tls.crl)".to_owned(),
        ),
        Is::UnknownIssuer => (
            Kind::UnknownAuthority,
            "the client's certificate was issued by nobody in server.tls.client_ca".to_owned(),
        ),
        Is::UnknownRevocationStatus => (
            Kind::CertificateRefused,
            "server.tls.crl has no list of the issuer of the client's certificate".to_owned(),
        ),
        Is::InvalidPurpose | Is::InvalidPurposeContext { .. } => (
            Kind::CertificateRefused,
            "the client's certificate is not for clients (extended key usage clientAuth)".to_owned(),
        ),
        _ => (
            Kind::CertificateRefused,
            format!("the client's certificate does not do: {error}"),
        ),
    }
}

/// The alerts of RFC 8446, section 6.2, that somebody sends who does not take a certificate.
fn of_alert(alert: AlertDescription) -> (Kind, String) {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let why = match alert {
        UnknownCA => "it does not know the authority that has issued it (alert unknown_ca)",
        CertificateExpired => "it has ended, or has not begun, by the client's clock (alert certificate_expired)",
        CertificateRevoked => "it is revoked (alert certificate_revoked)",
        BadCertificate => "its name or form is not what the client wants (alert bad_certificate)",
        CertificateUnknown => "for a reason that the client does not tell (alert certificate_unknown)",
        UnsupportedCertificate => "the client does not know its kind (alert unsupported_certificate)",
        other => return (Kind::Alert, format!("the client sent the alert {other:?}")),
    };
    (
        Kind::ServerUntrusted,
        format!("the client does not take the server's certificate: {why}"),
    )
}

/// A time as people read it; seconds where it is none.
fn at(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok();
    let known = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    known.map_or_else(|| format!("{} s", time.as_secs()), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn what_is_to_be_mended_is_said_in_words() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let ended = CertificateError::ExpiredContext {
            time: time(2_000_000_000),
            not_after: time(1_700_000_000),
        };
        let tls = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        for (error, kind, says) in [
            (
                tls(Error::InvalidCertificate(ended)),
                "certificate_expired",
                "2023-11-14T22:13:20Z",
            ),
            (
                tls(CertificateError::Revoked.into()),
                "certificate_revoked",
                "server.tls.crl",
            ),
            (
                tls(CertificateError::UnknownIssuer.into()),
                "unknown_authority",
                "server.tls.client_ca",
            ),
            (
                tls(CertificateError::BadSignature.into()),
                "certificate_refused",
                "BadSignature",
            ),
            (
                tls(PeerIncompatible::SupportedVersionsExtensionRequired.into()),
                "no_common_version",
                "server.tls.allow_tls12",
            ),
            (
                tls(PeerIncompatible::NoCipherSuitesInCommon.into()),
                "no_common_parameters",
                "NoCipherSuites",
            ),
            (
                tls(Error::AlertReceived(AlertDescription::UnknownCA)),
                "server_untrusted",
                "unknown_ca",
            ),
            (
                tls(Error::AlertReceived(AlertDescription::InternalError)),
                "alert",
                "InternalError",
            ),
            (io::ErrorKind::UnexpectedEof.into(), "closed", "closed"),
            (io::Error::other("x"), "other", "x"),
        ] {
            let failure = Failure::of(&error);
            assert_eq!(failure.kind.name(), kind, "{error:?}");
            assert!(failure.to_string().contains(says), "{failure}");
        }
    }
}
