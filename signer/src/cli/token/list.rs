//! `muhurdar token list`

use std::collections::BTreeSet;

use clap::Args;
use muhurdar_pool::{
    Latches,
    admin::{self, Object, ObjectKind, SlotFacts},
};
use muhurdar_xades::{Certificate, certificate::printable};

use super::{Failure, token_failure};
use crate::{
    config::{self, Config, Isolation},
    tokens,
};

/// `muhurdar token list`
#[derive(Debug, Args)]
pub(super) struct List {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "MUHURDAR_CONFIG")]
    config: std::path::PathBuf,
    /// Only the slots, without logging in
    #[arg(long)]
    slots: bool,
}

impl List {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let config = Config::load(&self.config).map_err(Failure::usage)?;
        tokens::set_environment(&config).map_err(Failure::unavailable)?;
        // Tokens of one module are slots of one initialisation, unless each has it in a process of its own, with its own environment.
        let mut seen = BTreeSet::new();
        for token in &config.tokens {
            let own = (token.isolation == Isolation::Process).then_some(&token.environment);
            if !seen.insert((&token.module, own)) {
                continue;
            }
            let selected = tokens::token_config(token).map_err(Failure::usage)?;
            println!("module {}", token.module.display());
            for slot in admin::slots(&selected).map_err(|e| token_failure(&e))? {
                print_slot(&slot);
            }
        }
        if self.slots {
            return Ok(());
        }
        // A token that does not answer keeps nobody from seeing the others. A latched one decides the exit code.
        let latches = tokens::latches(&config);
        let mut failed = None;
        for token in &config.tokens {
            if let Err(failure) = print_token(token, &latches) {
                eprintln!("muhurdar: {}", failure.message());
                failed = failed.max(Some(failure.code()));
            }
        }
        failed.map_or(Ok(()), |code| Err(Failure::silent(code)))
    }
}

fn print_slot(slot: &SlotFacts) {
    let Some(token) = &slot.token else {
        return println!("  slot {}: no token", slot.id);
    };
    if !token.flags.initialized() {
        return println!("  slot {}: a token that is not initialised", slot.id);
    }
    let flags = [
        (token.flags.user_pin_count_low(), "a wrong PIN was entered"),
        (token.flags.user_pin_final_try(), "ONE TRY LEFT"),
        (token.flags.user_pin_locked(), "PIN LOCKED"),
        (token.flags.user_pin_to_be_changed(), "PIN to be changed"),
        (token.flags.error_state(), "ERROR STATE"),
    ];
    let flags = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, text)| format!(", {text}"));
    println!(
        "  slot {}: \"{}\", serial {}, {} {}{}",
        slot.id,
        printable(&token.label),
        printable(&token.serial),
        printable(&token.manufacturer),
        printable(&token.model),
        flags.collect::<String>()
    );
}

fn print_token(token: &config::Token, latches: &Latches) -> Result<(), Failure> {
    let selected = tokens::token_config(token).map_err(Failure::usage)?;
    let objects = admin::objects(&selected, latches).map_err(|e| token_failure(&e))?;
    println!("token {}", token.name);
    let keys: Vec<_> = objects.iter().filter(|o| o.kind == ObjectKind::PrivateKey).collect();
    for key in &keys {
        print_key(key, &objects);
    }
    let lonely = |c: &&Object| !keys.iter().any(|key| belong_together(key, c));
    for certificate in objects
        .iter()
        .filter(|o| o.kind == ObjectKind::Certificate)
        .filter(lonely)
    {
        println!(
            "  certificate {} without a key here: {}",
            printable(&certificate.label),
            describe(certificate)
        );
    }
    let others = objects
        .iter()
        .filter(|o| !matches!(o.kind, ObjectKind::PrivateKey | ObjectKind::Certificate));
    for object in others {
        if let Some(why) = &object.unusable {
            println!("  {} is left out: {why}", object.name());
        }
    }
    Ok(())
}

/// As the service sees it: by public key, whatever CKA_ID and label say.
fn belong_together(key: &Object, other: &Object) -> bool {
    key.public_key.is_some() && key.public_key == other.public_key
}

fn print_key(key: &Object, objects: &[Object]) {
    let kind = key.key.map_or_else(|| "unknown type".to_owned(), |k| k.to_string());
    let worries = [
        (key.sensitive == Some(false), "NOT SENSITIVE"),
        (key.extractable == Some(true), "EXTRACTABLE"),
        (
            key.never_extractable == Some(false),
            "was extractable or came from outside",
        ),
    ];
    let worries = worries
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, text)| format!(", {text}"))
        .chain(key.unusable.iter().map(|why| format!(", cannot sign: {why}")));
    println!(
        "  key {} ({kind}){}",
        printable(&key.label),
        worries.collect::<String>()
    );
    let beside = objects
        .iter()
        .filter(|o| o.kind == ObjectKind::Certificate && belong_together(key, o));
    for certificate in beside {
        println!("    {}", describe(certificate));
    }
}

fn describe(object: &Object) -> String {
    if let Some(why) = &object.unusable {
        return format!("left out: {why}");
    }
    let certificate = object.der.as_deref().map(Certificate::from_der);
    let Some(Ok(certificate)) = certificate else {
        return "a certificate that cannot be read".to_owned();
    };
    let serves = match (
        certificate.taxpayer(),
        certificate.fit_for_sealing(jiff::Timestamp::now()),
    ) {
        (Some(taxpayer), Ok(())) => format!("seals for {taxpayer}"),
        (Some(taxpayer), Err(unfit)) => format!("taxpayer {taxpayer}, cannot seal: {unfit}"),
        (None, _) => "names no taxpayer".to_owned(),
    };
    format!("{serves} until {} ({})", certificate.not_after(), certificate.title())
}
