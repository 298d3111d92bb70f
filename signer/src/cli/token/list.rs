//! `muhurdar token list`

use std::collections::BTreeMap;

use clap::Args;
use muhurdar_pool::admin::{Object, ObjectKind, SlotFacts};
use muhurdar_xades::{Certificate, certificate::printable};

use super::{Failure, open, token_failure};
use crate::{
    config::{self, Config},
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
        // Tokens of one module are slots of one initialisation.
        let modules: BTreeMap<_, _> = config.tokens.iter().map(|token| (&token.module, token)).collect();
        for token in modules.values() {
            let module = open(token)?;
            println!("module {}", module.path().display());
            for slot in module.slots().map_err(|e| token_failure(&e))? {
                print_slot(&slot);
            }
        }
        if self.slots {
            return Ok(());
        }
        config.tokens.iter().try_for_each(print_token)
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

fn print_token(token: &config::Token) -> Result<(), Failure> {
    let selected = tokens::token_config(token).map_err(Failure::usage)?;
    let module = open(token)?;
    let objects = module
        .log_in(&selected)
        .and_then(|t| t.objects())
        .map_err(|e| token_failure(&e))?;
    println!("token {}", token.name);
    for key in objects.iter().filter(|o| o.kind == ObjectKind::PrivateKey) {
        print_key(key, &objects);
    }
    let lonely = |c: &&Object| {
        !objects
            .iter()
            .any(|k| k.kind == ObjectKind::PrivateKey && k.cka_id == c.cka_id)
    };
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
    Ok(())
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
        (
            key.always_authenticate == Some(true),
            "wants the PIN for every signature",
        ),
    ];
    let worries = worries
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, text)| format!(", {text}"));
    println!(
        "  key {} ({kind}){}",
        printable(&key.label),
        worries.collect::<String>()
    );
    let beside = objects
        .iter()
        .filter(|o| o.kind == ObjectKind::Certificate && o.cka_id == key.cka_id);
    for certificate in beside {
        println!("    {}", describe(certificate));
    }
}

fn describe(object: &Object) -> String {
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
