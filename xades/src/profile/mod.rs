//! The documents that are sealed: how each is told by its root, and where in it what stands.
//!
//! A file per family, each a table: which elements the preparation listens to, by expanded name and never by prefix, and
//! what each of them means for the seal. In comes a root element's name, out goes the table. Nothing here walks a
//! document, digests or writes.

mod earsiv;
mod edefter;
mod hr;
mod ubl;

use crate::error::{Label, Reason};
use crate::scan::Name;
use crate::scope::Ns;

/// The documents that are sealed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DocumentType {
    /// UBL-TR Invoice: e-Fatura, e-Arşiv Fatura, e-SMM.
    Invoice,
    /// UBL-TR CreditNote: e-Müstahsil Makbuzu.
    CreditNote,
    /// UBL-TR DespatchAdvice: e-İrsaliye.
    DespatchAdvice,
    /// UBL-TR ReceiptAdvice: e-İrsaliye answer.
    ReceiptAdvice,
    /// UBL-TR ApplicationResponse: KABUL, RED and IADE answers.
    ApplicationResponse,
    /// e-Arşiv report (`eArsivRaporu`).
    EArsivReport,
    /// e-Defter ledger (`edefter:defter`): yevmiye, kebir.
    EDefterLedger,
    /// e-Defter berat (`edefter:berat`).
    EDefterBerat,
    /// HR-XML `ProcessUserAccount` and `CancelUserAccount`.
    UserAccount,
}

impl DocumentType {
    /// Every one of them. What the configuration, the metrics and the wire call them is made from this list and [`DocumentType::id`].
    pub const ALL: [Self; 9] = [
        Self::Invoice,
        Self::CreditNote,
        Self::DespatchAdvice,
        Self::ReceiptAdvice,
        Self::ApplicationResponse,
        Self::EArsivReport,
        Self::EDefterLedger,
        Self::EDefterBerat,
        Self::UserAccount,
    ];

    /// What it is called by machines: `credit_note`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Invoice => "invoice",
            Self::CreditNote => "credit_note",
            Self::DespatchAdvice => "despatch_advice",
            Self::ReceiptAdvice => "receipt_advice",
            Self::ApplicationResponse => "application_response",
            Self::EArsivReport => "earsiv_report",
            Self::EDefterLedger => "edefter_ledger",
            Self::EDefterBerat => "edefter_berat",
            Self::UserAccount => "user_account",
        }
    }

    /// What the root element is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invoice => "Invoice",
            Self::CreditNote => "CreditNote",
            Self::DespatchAdvice => "DespatchAdvice",
            Self::ReceiptAdvice => "ReceiptAdvice",
            Self::ApplicationResponse => "ApplicationResponse",
            Self::EArsivReport => "eArsivRaporu",
            Self::EDefterLedger => "defter",
            Self::EDefterBerat => "berat",
            Self::UserAccount => "ProcessUserAccount or CancelUserAccount",
        }
    }

    /// The document whose root element has this name.
    pub(crate) fn of_root(name: &Name<'_>) -> Result<Self, Reason> {
        Ok(match (name.ns, name.local) {
            (Ns::INVOICE, b"Invoice") => Self::Invoice,
            (Ns::CREDIT_NOTE, b"CreditNote") => Self::CreditNote,
            (Ns::DESPATCH_ADVICE, b"DespatchAdvice") => Self::DespatchAdvice,
            (Ns::RECEIPT_ADVICE, b"ReceiptAdvice") => Self::ReceiptAdvice,
            (Ns::APPLICATION_RESPONSE, b"ApplicationResponse") => Self::ApplicationResponse,
            (Ns::EARSIV, b"eArsivRaporu") => Self::EArsivReport,
            (Ns::EDEFTER, b"defter") => Self::EDefterLedger,
            (Ns::EDEFTER, b"berat") => Self::EDefterBerat,
            (Ns::HR_XML, b"ProcessUserAccount" | b"CancelUserAccount") => Self::UserAccount,
            (Ns::ENVELOPE, b"StandardBusinessDocument") => return Err(Reason::Envelope),
            _ => {
                return Err(Reason::DocumentUnknown {
                    name: Label::new(name.qualified),
                });
            }
        })
    }

    /// Whether it belongs to the UBL family, whose seals carry a `xades:ClaimedRole`.
    pub fn is_ubl(self) -> bool {
        matches!(
            self,
            Self::Invoice | Self::CreditNote | Self::DespatchAdvice | Self::ReceiptAdvice | Self::ApplicationResponse
        )
    }

    /// Where in it what stands.
    pub(crate) fn family(self) -> &'static Family {
        match self {
            Self::Invoice | Self::CreditNote => &ubl::ACCOUNTING_SUPPLIER,
            Self::DespatchAdvice => &ubl::DESPATCH_SUPPLIER,
            Self::ReceiptAdvice => &ubl::DELIVERY_CUSTOMER,
            Self::ApplicationResponse => &ubl::SENDER,
            Self::EArsivReport => &earsiv::REPORT,
            Self::EDefterLedger => &edefter::LEDGER,
            Self::EDefterBerat => &edefter::BERAT,
            Self::UserAccount => &hr::USER_ACCOUNT,
        }
    }
}

/// An expanded name.
pub(crate) type Element = (Ns, &'static str);

/// What the preparation must know of a family of documents.
#[derive(Debug)]
pub(crate) struct Family {
    /// The elements to listen to; the root is the first.
    pub(crate) nodes: &'static [Node],
    /// What to say where the document has no place for a seal.
    pub(crate) no_place: &'static str,
}

/// An element to listen to.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its parent, as an index into [`Family::nodes`].
    pub(crate) parent: usize,
    pub(crate) element: Element,
    pub(crate) role: Role,
}

/// What an element means for the seal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// Only a step on the way.
    Step,
    /// Its text says something.
    Text(Field),
    /// Its text names a taxpayer.
    Name(Party, Register),
    /// Somewhere inside it a taxpayer must be named.
    Names(Party),
    /// Its content is the seal, if there is nothing in it but white space or a placeholder.
    Slot,
    /// Where there is no place by its end, the seal goes there, inside these elements.
    Append(&'static [Element]),
    /// Where there is no place when the first of its children begins, and that is not listened to, the seal goes before
    /// it, inside these elements.
    Prepend(&'static [Element]),
    /// Where there is no place when it begins, the seal goes before it, inside these elements.
    Before(&'static [Element]),
    /// Must be there before a seal is appended.
    Required,
    /// Must not be there.
    Forbidden(&'static str),
}

impl Role {
    /// Whether `element` is all that it appends around a seal.
    pub(crate) fn appends_only(self, element: Element) -> bool {
        matches!(self, Self::Append([only]) if only.0 == element.0 && only.1 == element.1)
    }
}

/// What a document says about its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Its own identifier.
    DocumentId,
    /// The Id that it gives its seal.
    SignatureUri,
}

/// How many fields there are.
pub(crate) const FIELDS: usize = 2;

/// Somebody whom a document names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// Its sealer.
    Signer,
    /// Whose it is, where it names no sealer.
    Identity,
    /// Whose it is, where even that is missing.
    IdentityElse,
}

/// How many there are.
pub(crate) const PARTIES: usize = 3;

/// Which register a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    /// The tax authority's, whatever else stands beside it: the element has no other meaning.
    Tax,
    /// By its `schemeID`.
    Scheme,
}

/// How a name counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// Whatever it is: where it cannot be read, nobody knows who is named.
    Always,
    /// Where it is the number of a taxpayer.
    AsNumber,
    /// It is a number of something else.
    Never,
}

impl Register {
    /// How a name with this `schemeID`, empty where there is none, counts.
    pub(crate) fn counts(self, scheme: &[u8]) -> Counts {
        let scheme = scheme.trim_ascii();
        let is = |known: &&str| scheme.eq_ignore_ascii_case(known.as_bytes());
        if self == Self::Tax || TAX_SCHEMES.iter().any(&is) {
            Counts::Always
        } else if OTHER_SCHEMES.iter().any(is) {
            Counts::Never
        } else {
            Counts::AsNumber
        }
    }
}

/// The schemes of VKN and TCKN.
const TAX_SCHEMES: [&str; 3] = ["VKN", "TCKN", "VKN_TCKN"];

/// The other schemes of `cac:PartyIdentification` (UBL-TR code list, PartyIdentificationIDType): some of their numbers have
/// ten digits or eleven too.
const OTHER_SCHEMES: [&str; 29] = [
    "HIZMETNO",
    "MUSTERINO",
    "TESISATNO",
    "TELEFONNO",
    "DISTRIBUTORNO",
    "TICARETSICILNO",
    "TAPDKNO",
    "BAYINO",
    "ABONENO",
    "SAYACNO",
    "EPDKNO",
    "SUBENO",
    "PASAPORTNO",
    "ARACIKURUMETIKET",
    "ARACIKURUMVKN",
    "CIFTCINO",
    "IMALATCINO",
    "DOSYANO",
    "HASTANO",
    "MERSISNO",
    "URETICINO",
    "GTB_REFNO",
    "GTB_GCB_TESCILNO",
    "GTB_FIILI_IHRACAT_TARIHI",
    "ARACKIMLIKNO",
    "PLAKA",
    "SEVKIYATNO",
    "SATICIDIBSATIRKOD",
    "ALICIDIBSATIRKOD",
];

const fn node(parent: usize, ns: Ns, local: &'static str, role: Role) -> Node {
    Node {
        parent,
        element: (ns, local),
        role,
    }
}
