//! A branch office: a gRPC client with a certificate of the appliance's CA.

use std::{fs, path::Path, time::Duration};

use muhurdar_proto::seal::v1::{
    GetSealRequest, SealInfo, SealRequest, get_seal_request, seal_service_client::SealServiceClient,
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity},
};
use tonic_types::{ErrorDetail, ErrorDetails, RpcStatusExt as _, StatusExt as _, pb};

use crate::Appliance;

/// Longer than anything here takes: a call that hangs fails its test, and does not hang it.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_MESSAGE: usize = 64 << 20;

/// A client certificate, or the lack of one.
#[derive(Debug)]
pub struct Branch {
    endpoint: Endpoint,
    tls: ClientTlsConfig,
}

impl Branch {
    /// The client of this name in the appliance's folder, such as `branch-1`.
    #[must_use]
    pub fn of(appliance: &Appliance, name: &str) -> Self {
        let clients = appliance.dir().join("clients");
        Self::nobody(appliance).with(
            &clients.join(format!("{name}.crt")),
            &clients.join(format!("{name}.key")),
        )
    }

    /// Somebody without a certificate.
    #[must_use]
    pub fn nobody(appliance: &Appliance) -> Self {
        let ca = read(&appliance.dir().join("ca.crt"));
        let endpoint = Endpoint::from_shared(format!("https://{}", appliance.address())).expect("an address is a URL");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        Self {
            endpoint: endpoint.timeout(PATIENCE).connect_timeout(PATIENCE),
            tls,
        }
    }

    /// The same with this certificate and key, in PEM files.
    #[must_use]
    pub fn with(mut self, certificate: &Path, key: &Path) -> Self {
        self.tls = self.tls.identity(Identity::from_pem(read(certificate), read(key)));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// Where the connection or its handshake fails.
    pub async fn try_connect(self) -> Result<Channel, Error> {
        self.endpoint.tls_config(self.tls)?.connect().await
    }

    /// Connects, and offers the calls.
    pub async fn connect(self) -> SealServiceClient<Channel> {
        let channel = self.try_connect().await.expect("the appliance takes the connection");
        SealServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The seal that a taxpayer's documents are sealed with now.
    ///
    /// # Panics
    /// Where it has none.
    pub async fn seal_of(client: &mut SealServiceClient<Channel>, taxpayer: &str) -> SealInfo {
        let seal = get_seal_request::Seal::Taxpayer(taxpayer.to_owned());
        let answer = client.get_seal(GetSealRequest { seal: Some(seal) }).await;
        answer.expect("a seal").into_inner().seal.expect("a seal")
    }

    /// What is asked for when nothing in particular is.
    #[must_use]
    pub fn request(taxpayer: &str, document: impl Into<Vec<u8>>) -> SealRequest {
        SealRequest {
            taxpayer: taxpayer.to_owned(),
            document: document.into().into(),
            ..SealRequest::default()
        }
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An error of the wire, as a caller reads it.
#[derive(Debug)]
pub struct Refused {
    /// gRPC code.
    pub code: Code,
    /// `google.rpc.ErrorInfo.reason`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The other details.
    pub details: ErrorDetails,
}

impl Refused {
    /// A number in the metadata of `ErrorInfo`, such as `line`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.metadata(name)?.parse().ok()
    }

    /// What the metadata of `ErrorInfo` says.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.details.error_info()?.metadata.get(name).map(String::as_str)
    }

    /// The description in `BadRequest`.
    #[must_use]
    pub fn bad_request(&self) -> Option<&str> {
        Some(
            self.details
                .bad_request()?
                .field_violations
                .first()?
                .description
                .as_str(),
        )
    }
}

/// The error of a call, as the service tells it.
///
/// # Panics
/// Where `ErrorInfo` is not the first of its details.
#[must_use]
pub fn refused(status: &Status) -> Refused {
    let first = status.get_error_details_vec().into_iter().next();
    assert!(matches!(first, Some(ErrorDetail::ErrorInfo(_))), "{status:?}");
    read_details(status.code(), status.message(), status.get_error_details())
}

/// The error of an item in a stream or batch.
///
/// # Panics
/// Where `ErrorInfo` is not the first of its details.
#[must_use]
pub fn refused_item(status: &pb::Status) -> Refused {
    let first = status.get_error_details_vec().into_iter().next();
    assert!(matches!(first, Some(ErrorDetail::ErrorInfo(_))), "{status:?}");
    read_details(Code::from_i32(status.code), &status.message, status.get_error_details())
}

fn read_details(code: Code, message: &str, details: ErrorDetails) -> Refused {
    let info = details.error_info().expect("it is the first of them");
    assert_eq!(info.domain, muhurdar_proto::ERROR_DOMAIN, "the domain of every error");
    Refused {
        code,
        reason: info.reason.clone(),
        message: message.to_owned(),
        details,
    }
}
