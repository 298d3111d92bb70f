//! Client certificate → client in the configuration → which calls and which taxpayers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use muhurdar_xades::DocumentType;
use wildmatch::WildMatch;

use super::quota::{Bound, LargeShare, Quota};
use crate::{
    config::{self, Call, Client, Priority, is_pattern},
    outside::Outside,
    refusal::Refusal,
    trace,
};

/// A caller whom the configuration knows.
#[derive(Debug)]
pub struct Caller {
    /// Its name in logs and receipts.
    pub name: Arc<str>,
    calls: Vec<Call>,
    taxpayers: Taxpayers,
    documents: Option<Vec<DocumentType>>,
    priorities: Vec<Priority>,
    weight: u64,
    quota: Quota,
}

#[derive(Debug, Default)]
struct Taxpayers {
    these: HashSet<String>,
    patterns: Vec<WildMatch>,
}

impl Taxpayers {
    fn new(named: &[String]) -> Self {
        let (patterns, these): (Vec<_>, _) = named.iter().partition(|named| is_pattern(named));
        Self {
            these: these.into_iter().cloned().collect(),
            patterns: patterns.iter().map(|pattern| WildMatch::new(pattern)).collect(),
        }
    }

    fn include(&self, taxpayer: &str) -> bool {
        self.these.contains(taxpayer) || self.patterns.iter().any(|pattern| pattern.matches(taxpayer))
    }
}

impl Caller {
    /// May it make this kind of call?
    ///
    /// # Errors
    /// ACCESS where not.
    pub fn may(&self, call: Call) -> Result<(), Refusal> {
        if self.calls.contains(&call) {
            return Ok(());
        }
        let right = match call {
            Call::Seal => "seal",
            Call::List => "list",
            Call::Digest => "digest",
        };
        Err(self.denied(
            &format!("has no right to \"{right}\""),
            "its `calls` in the configuration name the rights",
        ))
    }

    /// May it have such a document sealed?
    ///
    /// # Errors
    /// ACCESS where not.
    pub fn may_have_sealed(&self, document: DocumentType) -> Result<(), Refusal> {
        if self.documents.as_ref().is_none_or(|these| these.contains(&document)) {
            return Ok(());
        }
        Err(self.denied(
            &format!("may not have a document {} sealed", document.name()),
            "its `documents` in the configuration name those it may",
        ))
    }

    /// May it use this taxpayer's seal?
    ///
    /// # Errors
    /// ACCESS where not.
    pub fn may_seal_for(&self, taxpayer: &str) -> Result<(), Refusal> {
        if self.may_use(taxpayer) {
            return Ok(());
        }
        Err(self.denied(
            &format!("may not use the seal of taxpayer {taxpayer}"),
            "its `taxpayers` in the configuration name those it may",
        ))
    }

    /// Who was denied what is for the audit log too, and what an operator can do about it for that alone.
    fn denied(&self, what: &str, advice: &str) -> Refusal {
        let (client, peer) = (&self.name, trace::peer());
        tracing::warn!(target: "muhurdar::audit", %client, why = what, advice, peer = peer.as_deref(), "denied");
        Refusal::Access(format!(
            "client {client} {what}; whoever runs the service gives the rights"
        ))
    }

    /// May its documents be so urgent?
    ///
    /// # Errors
    /// ACCESS where not.
    pub fn may_be(&self, priority: Priority) -> Result<(), Refusal> {
        if self.priorities.contains(&priority) {
            return Ok(());
        }
        Err(self.denied(
            &format!("may not ask for priority \"{}\"", priority.name()),
            "its `priorities` in the configuration name those it may",
        ))
    }

    /// Takes one of its places for large documents, `most` where its quota says nothing.
    ///
    /// # Errors
    /// QUOTA where it has as many as it may.
    pub fn take_large(&self, most: usize) -> Result<LargeShare, Refusal> {
        self.quota.take_large(most)
    }

    /// The kinds of calls that it may make.
    #[must_use]
    pub fn rights(&self) -> &[Call] {
        &self.calls
    }

    /// How urgent its documents may be.
    #[must_use]
    pub fn priorities(&self) -> &[Priority] {
        &self.priorities
    }

    /// What it may have sealed; none: everything.
    #[must_use]
    pub fn documents(&self) -> Option<&[DocumentType]> {
        self.documents.as_deref()
    }

    /// Its own bounds.
    #[must_use]
    pub fn limits(&self) -> &config::Quota {
        self.quota.limits()
    }

    /// The first so many of whose seals it may use, patterns among them, in their order.
    #[must_use]
    pub fn taxpayers(&self, most: usize) -> Vec<String> {
        let patterns = self.taxpayers.patterns.iter().map(ToString::to_string);
        let mut all: Vec<_> = self.taxpayers.these.iter().cloned().chain(patterns).collect();
        all.sort_unstable();
        all.truncate(most);
        all
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Whether it may use this taxpayer's seal.
    #[must_use]
    pub fn may_use(&self, taxpayer: &str) -> bool {
        self.taxpayers.include(taxpayer)
    }
}

/// The clients of the configuration, by the names in their certificates.
#[derive(Debug, Default)]
pub struct Access {
    by_identity: HashMap<String, Arc<Caller>>,
}

impl Access {
    /// Indexes the configured clients.
    #[must_use]
    pub fn new(clients: &[Client]) -> Self {
        Self::after(&Self::default(), clients)
    }

    /// Indexes the clients of a new configuration; who was there before keeps what it has used of its quota.
    #[must_use]
    pub fn after(before: &Self, clients: &[Client]) -> Self {
        let known: HashMap<&str, &Caller> = before.by_identity.values().map(|c| (&*c.name, &**c)).collect();
        let by_identity = clients.iter().map(|client| {
            let documents = client.documents.as_ref();
            let caller = Caller {
                name: client.name.as_str().into(),
                calls: client.calls.clone(),
                taxpayers: Taxpayers::new(&client.taxpayers),
                documents: documents.map(|these| these.iter().map(|this| (*this).into()).collect()),
                priorities: client.priorities.clone(),
                weight: u64::from(client.weight),
                quota: Quota::new(client.quota, known.get(client.name.as_str()).map(|c| &c.quota)),
            };
            (client.identity.clone(), Arc::new(caller))
        });
        Self {
            by_identity: by_identity.collect(),
        }
    }

    /// What somebody's connections are counted by: the name of the client that a certificate's names belong to, else the first
    /// of them; empty without a certificate.
    #[must_use]
    pub fn identity(&self, names: Option<&[String]>) -> String {
        let names = names.unwrap_or_default();
        let known = names.iter().find_map(|name| self.by_identity.get(name));
        known.map_or_else(|| names.first().cloned().unwrap_or_default(), |c| c.name.to_string())
    }

    /// The client that a certificate's names belong to, where one of them does.
    #[must_use]
    pub fn known(&self, names: &[String]) -> Option<Arc<Caller>> {
        names.iter().find_map(|name| self.by_identity.get(name)).cloned()
    }

    /// How many documents each bound of each client's quota has refused.
    pub fn quota_refusals(&self) -> impl Iterator<Item = (&Arc<str>, Bound, u64)> {
        let callers = self.by_identity.values();
        callers.flat_map(|caller| {
            caller
                .quota
                .refusals()
                .map(|(bound, count)| (&caller.name, bound, count))
        })
    }

    /// Any client at all.
    #[cfg(test)]
    pub(super) fn anybody(&self) -> Arc<Caller> {
        self.by_identity.values().next().cloned().unwrap()
    }

    /// The client that a certificate's names belong to, or why there is none.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a certificate, ACCESS where no client has one of its names.
    pub fn caller(&self, names: Option<&[String]>) -> Result<Arc<Caller>, Refusal> {
        let names = names.ok_or(Refusal::Unauthenticated)?;
        self.known(names).ok_or_else(|| {
            let shown = Outside::new(names.first().map_or("without a name", String::as_str));
            let (peer, why) = (trace::peer(), "no [[client]] has this name");
            tracing::warn!(target: "muhurdar::audit", certificate = %shown, why, peer = peer.as_deref(), "denied");
            Refusal::Access(format!(
                "the certificate {shown} belongs to no client that the service knows; whoever runs it must enter that name"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Document;

    fn access() -> Access {
        Access::new(&[Client {
            name: "branch-1".to_owned(),
            identity: "uri:urn:muhurdar:client:branch-1".to_owned(),
            taxpayers: vec!["1234567890".to_owned(), "22*".to_owned(), "3333333??3".to_owned()],
            taxpayers_file: None,
            documents: Some(vec![Document(DocumentType::Invoice)]),
            calls: vec![Call::Seal],
            priorities: vec![Priority::Normal],
            weight: 1,
            quota: config::Quota::default(),
            form: config::Form::default(),
        }])
    }

    #[test]
    fn a_certificate_is_known_by_any_of_its_names() {
        let names = [
            "dns:elsewhere".to_owned(),
            "uri:urn:muhurdar:client:branch-1".to_owned(),
        ];
        assert_eq!(&*access().caller(Some(&names)).unwrap().name, "branch-1");
    }

    #[test]
    fn no_certificate_is_unauthenticated_and_an_unknown_one_is_denied() {
        assert!(matches!(access().caller(None), Err(Refusal::Unauthenticated)));
        assert!(matches!(
            access().caller(Some(&["cn:x".to_owned()])),
            Err(Refusal::Access(_))
        ));
        assert!(matches!(access().caller(Some(&[])), Err(Refusal::Access(_))));
    }

    #[test]
    fn a_client_uses_the_seals_and_calls_it_was_given_and_no_others() {
        let caller = access()
            .caller(Some(&["uri:urn:muhurdar:client:branch-1".to_owned()]))
            .unwrap();
        assert!(caller.may_use("1234567890") && !caller.may_use("1234567891"));
        assert!(caller.may_use("2234567890") && caller.may_use("22345678901") && caller.may_use("3333333003"));
        assert!(!caller.may_use("3333333004") && !caller.may_use("1223456789"));
        assert!(caller.may_have_sealed(DocumentType::Invoice).is_ok());
        assert!(caller.may_have_sealed(DocumentType::DespatchAdvice).is_err());
        assert!(caller.may(Call::Seal).is_ok() && caller.may(Call::List).is_err());
        assert!(caller.may_be(Priority::Normal).is_ok() && caller.may_be(Priority::Interactive).is_err());
    }
}
