//! Are the seals that came back real?
//!
//! The verifier is xmlsec1 (libxml2 and OpenSSL): nothing of it was written here, and nothing of the signer's engine is in it. Around it stand
//! checks that a verifier of one file cannot make: that the sealed document is the one that was sent, byte for byte but for the seal;
//! that the seal carries the certificate of the taxpayer asked for; that the answer's digest and signature value are those of the file. It
//! works after the load, so that it takes no CPU from the service under test.

use std::{
    fs, io,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use muhurdar_proto::seal::v1::seal_response;

use crate::{driver::Sample, generator::Taxpayer};

/// Files per xmlsec1: its start-up costs more than a verification.
const BATCH: usize = 100;
const KEPT_EXAMPLES: usize = 5;
/// The most of somebody's document that a seal may replace: a placeholder with white space around it.
const PLACEHOLDER: usize = 1024;

/// What verification found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified {
    pub(crate) good: u64,
    pub(crate) wrong: u64,
    pub(crate) examples: Vec<String>,
}

/// xmlsec1, found and asked for its version.
#[derive(Clone, Debug)]
pub(crate) struct Xmlsec1 {
    pub(crate) version: String,
}

impl Xmlsec1 {
    /// None where it is not installed.
    pub(crate) fn find() -> Option<Self> {
        let output = Command::new("xmlsec1")
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| Self {
            version: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        })
    }

    /// Verifies samples; `tick` is told how many are done.
    pub(crate) fn verify(
        &self,
        samples: &[Sample],
        taxpayers: &[Taxpayer],
        mut tick: impl FnMut(usize),
    ) -> io::Result<Verified> {
        let folder = tempfile::tempdir()?;
        let mut found = Verified::default();
        for (nth, batch) in samples.chunks(BATCH).enumerate() {
            let mut files = Vec::new();
            let mut problems: Vec<Option<String>> = Vec::new();
            for (index, sample) in batch.iter().enumerate() {
                let file = folder.path().join(format!("{index}.xml"));
                match sealed(sample) {
                    Ok(sealed) => {
                        fs::write(&file, &sealed)?;
                        problems.push(inspect(sample, &sealed, taxpayers).err());
                        files.push(Some(file));
                    }
                    Err(problem) => {
                        problems.push(Some(problem));
                        files.push(None);
                    }
                }
            }
            let readable: Vec<&PathBuf> = files.iter().flatten().collect();
            if !run(&readable)? {
                // One of them is wrong: ask file by file.
                for (file, problem) in files.iter().zip(&mut problems) {
                    if let Some(file) = file
                        && problem.is_none()
                        && !run(&[file])?
                    {
                        *problem = Some("xmlsec1 finds the signature or a digest wrong".to_owned());
                    }
                }
            }
            for (sample, problem) in batch.iter().zip(problems) {
                match problem {
                    None => found.good += 1,
                    Some(problem) => {
                        found.wrong += 1;
                        if found.examples.len() < KEPT_EXAMPLES {
                            found.examples.push(format!("{}: {problem}", sample.document.name()));
                        }
                    }
                }
            }
            tick(nth * BATCH + batch.len());
        }
        Ok(found)
    }
}

/// True where every file verifies.
fn run(files: &[&PathBuf]) -> io::Result<bool> {
    if files.is_empty() {
        return Ok(true);
    }
    let output = Command::new("xmlsec1")
        .args(["--verify", "--insecure"])
        .args(["--id-attr:Id", "http://uri.etsi.org/01903/v1.3.2#:SignedProperties"])
        .args(["--id-attr:Id", "http://www.w3.org/2000/09/xmldsig#:SignatureValue"])
        .args(files)
        .stdin(Stdio::null())
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let good = said
        .split(|byte| *byte == b'\n')
        .filter(|line| line.trim_ascii() == b"OK")
        .count();
    Ok(output.status.success() && good == files.len())
}

/// The sealed document of an answer, put together where only the seal came.
fn sealed(sample: &Sample) -> Result<Vec<u8>, String> {
    match &sample.answer.as_ref().map_err(Clone::clone)?.answer {
        Some(seal_response::Answer::SealedDocument(document)) => Ok(document.to_vec()),
        Some(seal_response::Answer::Patch(seal)) => {
            let input = sample.document.to_vec();
            let offset = usize::try_from(seal.offset).ok();
            let end = offset.and_then(|offset| offset.checked_add(usize::try_from(seal.length).ok()?));
            match (offset, end) {
                (Some(offset), Some(end)) if end <= input.len() => {
                    Ok([&input[..offset], &seal.replacement, &input[end..]].concat())
                }
                _ => Err("the range of the seal lies outside the document".to_owned()),
            }
        }
        None => Err("the answer holds neither a document nor a seal".to_owned()),
    }
}

/// What xmlsec1 cannot know.
fn inspect(sample: &Sample, sealed: &[u8], taxpayers: &[Taxpayer]) -> Result<(), String> {
    let input = sample.document.to_vec();
    let before = input.iter().zip(sealed).take_while(|(a, b)| a == b).count();
    let after = input
        .iter()
        .rev()
        .zip(sealed.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    // What a generator wrote has an empty place for the seal: a seal is an insertion, and all else stays. In others' documents a placeholder
    // or white space gives way.
    let gives_way = if sample.document.is_written() { 0 } else { PLACEHOLDER };
    if before + after + gives_way < input.len() || sealed.len() <= input.len() - gives_way.min(input.len()) {
        return Err("what came back is not the document that was sent, with a seal in it".to_owned());
    }
    let text = &*text(sealed)?;
    let answer = sample.answer.as_ref().map_err(Clone::clone)?;
    let certificate = only(text, "X509Certificate")?;
    let taxpayer = taxpayers
        .iter()
        .find(|taxpayer| *taxpayer.number == *sample.document.taxpayer());
    if let Some(expected) = taxpayer.and_then(|taxpayer| taxpayer.certificate.as_deref())
        && certificate != expected
    {
        return Err(format!(
            "sealed with a certificate that is not {}'s",
            sample.document.taxpayer()
        ));
    }
    let Some(answer) = &answer.result else {
        return Ok(());
    };
    let value = &answer.signature_value;
    if !value.is_empty() && only(text, "SignatureValue")? != **value {
        return Err("signature_value of the answer is not the one in the document".to_owned());
    }
    let digest = &answer.sealed_document_sha256;
    if !digest.is_empty() && aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, sealed).as_ref() != &**digest {
        return Err("sealed_document_sha256 of the answer is not the file's".to_owned());
    }
    Ok(())
}

/// The characters of a document, as far as base64 and names of elements go: in every encoding here these are ASCII, or UTF-16.
fn text(document: &[u8]) -> Result<std::borrow::Cow<'_, str>, String> {
    let units = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = document[2..]
            .chunks_exact(2)
            .map(|pair| from([pair[0], pair[1]]))
            .collect();
        String::from_utf16(&units)
            .map(Into::into)
            .map_err(|_| "what came back is not UTF-16".to_owned())
    };
    match document {
        [0xFF, 0xFE, ..] => units(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => units(u16::from_be_bytes),
        _ => Ok(String::from_utf8_lossy(document)),
    }
}

/// The base64 content of the one element of this local name; more than one, or none, is wrong for a generated document.
fn only(text: &str, name: &str) -> Result<Vec<u8>, String> {
    let opening = |at: &usize| {
        let before = text[..*at].rfind('<').map_or("", |open| &text[open + 1..*at]);
        let after = text.as_bytes().get(at + name.len());
        (before.is_empty() || (before.ends_with(':') && !before.starts_with('/') && !before.contains(['>', ' '])))
            && matches!(after, Some(b'>' | b' ' | b'\n'))
    };
    let mut places = text.match_indices(name).map(|(at, _)| at).filter(opening);
    let at = places
        .next()
        .ok_or_else(|| format!("there is no {name} in what came back"))?;
    if places.next().is_some() {
        return Err(format!("there is more than one {name} in what came back"));
    }
    let content = text[at..]
        .split_once('>')
        .and_then(|(_, rest)| rest.split_once('<'))
        .map_or("", |(text, _)| text);
    let base64: String = content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(base64).map_err(|_| format!("{name} is not base64"))
}

/// Reads `1%`, `0.5%`, `all`, `0`, or a share such as `0.01`.
pub(crate) fn share(text: &str) -> Option<f64> {
    let share = match text {
        "all" => 1.0,
        "none" => 0.0,
        _ => match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
            None => text.parse().ok()?,
        },
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// Where the verifier would be looked for; for messages only.
pub(crate) fn missing() -> &'static str {
    "xmlsec1 is not installed, and nothing else here can verify a seal: apt-get install xmlsec1, or --verify 0"
}

#[cfg(test)]
mod tests;
