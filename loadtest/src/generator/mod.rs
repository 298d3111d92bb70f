//! Documents to seal, made from a seed, or the user's own.
//!
//! What comes in: a [`Workload`] (kinds, sizes, taxpayers, or a folder) and a seed. What goes out: [`Document`]s, each with its own
//! number and UUID, each naming the taxpayer whose seal it wants. The texts are written once, as templates; a document is
//! a template and a few patched fields, and becomes bytes only where it is written to the wire, so that a 10 KB invoice
//! costs the generator one copy. This room knows nothing of gRPC, of time or of answers.

mod given;
mod size;
mod taxpayers;
mod template;
mod ubl;

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use self::template::{Fields, Template};
pub use self::{
    given::{FolderError, Given, read_folder},
    size::{Size, SizeMix, SizeParseError},
    taxpayers::{Taxpayer, TaxpayerMix},
};

/// How many different texts are made for each kind and size, so that the server does not see one document over and over.
const VARIANTS: usize = 4;

/// A document of the law that the generator can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
#[non_exhaustive]
pub enum Kind {
    /// e-Fatura: UBL-TR `Invoice`, profile TEMELFATURA.
    Invoice,
    /// e-Arşiv Fatura: UBL-TR `Invoice`, profile EARSIVFATURA.
    Earsiv,
    /// e-Müstahsil Makbuzu: UBL-TR `CreditNote`.
    CreditNote,
    /// e-İrsaliye: UBL-TR `DespatchAdvice`.
    Despatch,
    /// e-İrsaliye answer: UBL-TR `ReceiptAdvice`.
    Receipt,
    /// KABUL answer: UBL-TR `ApplicationResponse`.
    Response,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Invoice,
        Self::Earsiv,
        Self::CreditNote,
        Self::Despatch,
        Self::Receipt,
        Self::Response,
    ];

    /// As the command line and the report name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invoice => "invoice",
            Self::Earsiv => "earsiv",
            Self::CreditNote => "credit-note",
            Self::Despatch => "despatch",
            Self::Receipt => "receipt",
            Self::Response => "response",
        }
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Chosen evenly.
    pub kinds: Vec<Kind>,
    /// Chosen by weight.
    pub sizes: SizeMix,
    /// Chosen by Zipf's law, or evenly.
    pub taxpayers: TaxpayerMix,
    /// The same seed, workload and issue date give the same documents in the same order.
    pub seed: u64,
    /// `cbc:IssueDate` of every document.
    pub issue_date: jiff::civil::Date,
    /// The user's own, chosen evenly, instead of `kinds` and `sizes`.
    pub given: Option<Arc<[Given]>>,
}

/// Writes documents, one after the other.
#[derive(Debug)]
pub struct Generator {
    random: fastrand::Rng,
    workload: Workload,
    /// By kind, size, length of the taxpayer's number, variant; see [`Generator::template`].
    templates: Vec<Arc<Template>>,
    /// Serial number of the next document, and the step to the one after: workers take turns in one numbering.
    next_serial: u64,
    serial_step: u64,
    /// Three letters that open every document number of this run.
    series: [u8; 3],
}

impl Generator {
    /// A generator for worker `worker` of `workers`; all of them together give every document a number of its own.
    pub fn new(workload: Workload, worker: usize, workers: usize) -> Self {
        let mut shared = fastrand::Rng::with_seed(workload.seed);
        let series = [(); 3].map(|()| shared.alphanumeric().to_ascii_uppercase() as u8);
        let mut templates = Vec::new();
        let written: &[Kind] = if workload.given.is_some() { &[] } else { &workload.kinds };
        for &kind in written {
            for size in workload.sizes.sizes() {
                for person in [false, true] {
                    for _ in 0..VARIANTS {
                        let text = ubl::write(kind, size, person, workload.issue_date, &mut shared);
                        templates.push(Arc::new(Template::parse(&text)));
                    }
                }
            }
        }
        let random = fastrand::Rng::with_seed(workload.seed ^ (worker as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self {
            random,
            workload,
            templates,
            next_serial: worker as u64 + 1,
            serial_step: workers as u64,
            series,
        }
    }

    /// The next document.
    pub fn document(&mut self) -> Document {
        let taxpayer = self.workload.taxpayers.choose(&mut self.random).clone();
        if let Some(given) = &self.workload.given {
            let given = given[self.random.usize(..given.len())].clone();
            return Document::given(given, taxpayer.number);
        }
        let kind = self.random.usize(..self.workload.kinds.len());
        let size = self.workload.sizes.choose(&mut self.random);
        let variant = self.random.usize(..VARIANTS);
        let template = self.template(kind, size, taxpayer.is_person(), variant);
        let number = self.number();
        Document(Content::Written {
            template,
            fields: Fields {
                number,
                uuid: self.random.u128(..),
                taxpayer: taxpayer.number.clone(),
            },
        })
    }

    /// A uniform number in 0..1, for the choices that the driver leaves to the seed.
    pub fn chance(&mut self) -> f64 {
        self.random.f64()
    }

    fn template(&self, kind: usize, size: usize, person: bool, variant: usize) -> Arc<Template> {
        let sizes = self.workload.sizes.sizes().len();
        let index = ((kind * sizes + size) * 2 + usize::from(person)) * VARIANTS + variant;
        self.templates[index].clone()
    }

    /// Three letters, the year, nine digits: the form GİB asks of a document number.
    fn number(&mut self) -> [u8; 16] {
        let mut number = [b'0'; 16];
        number[..3].copy_from_slice(&self.series);
        write_digits(
            &mut number[3..7],
            u64::from(self.workload.issue_date.year().unsigned_abs()),
        );
        write_digits(&mut number[7..], self.next_serial % 1_000_000_000);
        self.next_serial += self.serial_step;
        number
    }
}

fn write_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// One document: cheap to hold and to clone, bytes only when written.
#[derive(Clone, Debug)]
pub struct Document(Content);

#[derive(Clone, Debug)]
enum Content {
    /// By this generator.
    Written { template: Arc<Template>, fields: Fields },
    /// By somebody else.
    Given {
        name: String,
        bytes: Bytes,
        taxpayer: Arc<str>,
        /// By the generator of another machine, all the same.
        written: bool,
    },
}

impl Document {
    /// Somebody's own document, for the taxpayer that it names, else for `otherwise`.
    pub fn given(given: Given, otherwise: Arc<str>) -> Self {
        Self(Content::Given {
            name: given.name,
            bytes: given.bytes,
            taxpayer: given.taxpayer.unwrap_or(otherwise),
            written: false,
        })
    }

    /// The same, known to have been written by a generator on another machine.
    pub(crate) fn known_written(mut self) -> Self {
        if let Content::Given { written, .. } = &mut self.0 {
            *written = true;
        }
        self
    }

    /// The VKN or TCKN whose seal it wants.
    pub fn taxpayer(&self) -> &str {
        match &self.0 {
            Content::Written { fields, .. } => &fields.taxpayer,
            Content::Given { taxpayer, .. } => taxpayer,
        }
    }

    /// Its number (`cbc:ID`), or the name of its file.
    pub fn name(&self) -> &str {
        match &self.0 {
            Content::Written { fields, .. } => {
                std::str::from_utf8(&fields.number).expect("a number is made of ASCII letters and digits")
            }
            Content::Given { name, .. } => name,
        }
    }

    /// Whether a generator wrote it: then its place for the seal is empty.
    pub fn is_written(&self) -> bool {
        matches!(self.0, Content::Written { .. } | Content::Given { written: true, .. })
    }

    /// Its length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a document is never empty")]
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Written { template, .. } => template.len(),
            Content::Given { bytes, .. } => bytes.len(),
        }
    }

    /// Writes its bytes, [`Document::len`] of them.
    pub fn write(&self, out: &mut impl BufMut) {
        match &self.0 {
            Content::Written { template, fields } => template.write(fields, out),
            Content::Given { bytes, .. } => out.put_slice(bytes),
        }
    }

    /// Its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.write(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests;
