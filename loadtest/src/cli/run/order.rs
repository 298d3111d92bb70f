//! From what was asked to what is to be done: every file is read here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use muhurdar_proto::seal::v1::{AnswerKind, Priority};

use super::{Args, args::priority, folder::server_toml, interrupted};
use crate::{
    agents::{Fleet, FleetError},
    ceiling::CeilingOrder,
    cli::Exit,
    driver::{Branch, Setup},
    generator::{self, Given, Taxpayer, TaxpayerMix, Workload},
    plan::PlanSpec,
    run::Order,
    service_config,
    target::{self, Identity, Target},
    timeline::{self, Action, Hands},
    verify,
};

/// From what was asked to what is to be done; every file is read here.
pub(super) fn order(args: &Args) -> Result<Order, Exit> {
    let dir = args.dir.as_deref();
    let client = match dir {
        Some(dir) => Some(target::read_client_file(&dir.join("client.toml")).map_err(Exit::usage)?),
        None => None,
    };
    let endpoint = args
        .endpoint
        .clone()
        .or_else(|| client.as_ref().map(|c| c.endpoint.clone()))
        .unwrap_or_default();
    let ca = args
        .ca
        .clone()
        .or_else(|| client.as_ref().map(|c| c.ca.clone()))
        .unwrap_or_default();
    let target = Target::open(&endpoint, &ca).map_err(Exit::usage)?;
    let branches = branches(args, client.map(|client| client.identity))?;
    let taxpayers = taxpayers(args)?;
    let ceiling = match (args.no_ceiling, args.token_config.clone(), dir) {
        (true, ..) => None,
        (false, Some(config), _) => Some(config),
        (false, None, Some(dir)) => Some(dir.join("muhurdar.toml")),
        (false, None, None) => None,
    }
    .map(|config| CeilingOrder {
        config,
        token: None,
        certificate: taxpayers
            .first()
            .and_then(|taxpayer| taxpayer.certificate.as_ref().map(|der| der.to_vec())),
        sessions: None,
        duration: Duration::from_millis(1500),
    });
    let given = match &args.documents {
        Some(folder) => Some(documents(folder, &taxpayers)?),
        None => None,
    };
    let mix = TaxpayerMix::new(taxpayers, args.zipf).ok_or_else(|| {
        Exit::usage("no taxpayer to seal for: --taxpayer VKN, --taxpayers FILE, or another --key-type")
    })?;
    let share = match &args.verify {
        Some(text) => {
            verify::share(text).ok_or_else(|| Exit::usage(format!("--verify '{text}': write 1%, all or 0")))?
        }
        None => 0.01,
    };
    for (name, value) in [
        ("--connections", args.connections),
        ("--streams", args.streams),
        ("--threads", args.threads),
        ("--concurrency", args.concurrency),
        ("--max-in-flight", args.max_in_flight),
        ("--batch", args.batch),
    ] {
        if value == 0 || value > 1_000_000 {
            return Err(Exit::usage(format!("{name} must be at least 1 and at most 1000000")));
        }
    }
    let spec = match (args.rate, args.closed) {
        (Some(rate), _) if rate > 0.0 && rate <= 1e7 => PlanSpec::Constant(rate),
        (Some(rate), _) => {
            return Err(Exit::usage(format!(
                "--rate {rate}: a rate is above 0 and at most 10000000"
            )));
        }
        (None, true) => PlanSpec::Closed(args.concurrency),
        (None, false) => args.plan.clone(),
    };
    let plan = spec
        .plan(args.duration, args.warmup, args.concurrency)
        .map_err(Exit::usage)?;
    Ok(Order {
        setup: Setup {
            target,
            branches,
            workload: Workload {
                kinds: args.kind.clone(),
                sizes: args.size.clone(),
                taxpayers: mix,
                seed: args.seed,
                issue_date: jiff::Zoned::now().date(),
                given,
            },
            mode: args.mode,
            answer: if args.signature_only {
                AnswerKind::Patch
            } else {
                AnswerKind::Document
            },
            connections: args.connections,
            streams: args.streams,
            batch: args.batch,
            workers: args.threads,
            max_in_flight: args.max_in_flight,
            sample: share,
            sample_bytes: 256 << 20,
            drain: args.drain,
        },
        plan,
        metrics: metrics(args)?,
        ceiling,
        verify: (share, args.verify.is_some()),
        config: args
            .token_config
            .clone()
            .or_else(|| Some(dir?.join("muhurdar.toml")))
            .map(|file| service_config::read(&file))
            .unwrap_or_default(),
        command: std::env::args().collect(),
        label: args.label.clone(),
        actions: actions(args)?,
        hands: Hands::default(),
        fleet: fleet(args)?,
        interrupted: interrupted(),
    })
}

/// A folder's documents, each with the taxpayer whom it names: one whose seal can be asked for.
fn documents(folder: &Path, taxpayers: &[Taxpayer]) -> Result<Arc<[Given]>, Exit> {
    // Whom a document names is asked of the engine that a branch would prepare it with; any certificate does for that.
    let certificate = taxpayers.iter().find_map(|taxpayer| {
        let der = taxpayer.certificate.as_deref()?;
        muhurdar_xades::Certificate::from_der(der).ok()
    });
    let sealer = |document: &[u8]| {
        let Some(certificate) = &certificate else {
            return Ok(None);
        };
        let sealing = muhurdar_xades::Sealing {
            certificate,
            policy: &muhurdar_xades::Policy::default(),
            limits: &muhurdar_xades::Limits::default(),
            signing_time: jiff::Timestamp::now(),
            expect: None,
        };
        let prepared = muhurdar_xades::prepare(document, &sealing).map_err(|refusal| refusal.to_string())?;
        match prepared.sealer().taxpayer() {
            Ok(Some(named)) if taxpayers.iter().all(|taxpayer| *taxpayer.number != *named) => Err(format!(
                "it names {named}, for whom no seal can be asked here (--taxpayers, --taxpayer, --key-type; muhurdar dev --taxpayer {named})"
            )),
            Ok(named) => Ok(named.map(str::to_owned)),
            Err(unclear) => Err(format!("whom it names as its sealer cannot be told: {unclear}")),
        }
    };
    generator::read_folder(folder, sealer).map_err(Exit::usage)
}

/// From the script and from `--at`.
fn actions(args: &Args) -> Result<Vec<Action>, Exit> {
    let mut actions = match &args.script {
        Some(file) => timeline::read_script(file).map_err(Exit::usage)?,
        None => Vec::new(),
    };
    actions.extend(args.actions.iter().cloned());
    Ok(actions)
}

fn fleet(args: &Args) -> Result<Option<Arc<Fleet>>, Exit> {
    match &args.agent_keys {
        Some(keys) => match Fleet::connect(&args.agents, keys, args.clock_limit) {
            Ok(fleet) => Ok(Some(Arc::new(fleet))),
            Err(error @ FleetError::Keys(_)) => Err(Exit::usage(error)),
            Err(error) => Err(Exit::unavailable(error)),
        },
        None => Ok(None),
    }
}

fn branches(args: &Args, from_file: Option<Identity>) -> Result<Vec<Branch>, Exit> {
    let default = args.priority.unwrap_or(Priority::Unspecified);
    if args.branches.is_empty() {
        let identity = match (&args.cert, &args.key, from_file) {
            (Some(certificate), Some(key), _) => Identity::read(certificate, key).map_err(Exit::usage)?,
            (_, _, Some(identity)) => identity,
            _ => return Err(Exit::usage("who is the client? --cert FILE --key FILE, or --dir DIR")),
        };
        return Ok(vec![Branch {
            identity,
            share: 1.0,
            priority: default,
        }]);
    }
    args.branches
        .iter()
        .map(|text| {
            let mut parts = text.split(',');
            let who = parts.next().unwrap_or_default();
            let (certificate, key) = match (who.split_once(':'), &args.dir) {
                (Some((certificate, key)), _) => (PathBuf::from(certificate), PathBuf::from(key)),
                (None, Some(dir)) if !who.contains('/') && !who.contains('.') => (
                    dir.join("clients").join(format!("{who}.crt")),
                    dir.join("clients").join(format!("{who}.key")),
                ),
                (None, _) => (PathBuf::from(who), Path::new(who).with_extension("key")),
            };
            let mut branch = Branch {
                identity: Identity::read(&certificate, &key).map_err(Exit::usage)?,
                share: 1.0,
                priority: default,
            };
            for part in parts {
                let bad = || Exit::usage(format!("--branch {text}: '{part}' is not priority=… or share=…"));
                match part.split_once('=').ok_or_else(bad)? {
                    ("priority", name) => branch.priority = priority(name).map_err(Exit::usage)?,
                    ("share", share) => {
                        branch.share = share
                            .parse()
                            .ok()
                            .filter(|share| *share > 0.0 && *share <= 1e6)
                            .ok_or_else(bad)?;
                    }
                    _ => return Err(bad()),
                }
            }
            Ok(branch)
        })
        .collect()
}

fn taxpayers(args: &Args) -> Result<Vec<Taxpayer>, Exit> {
    let file = args
        .taxpayers
        .clone()
        .or_else(|| args.dir.as_ref().map(|dir| dir.join("taxpayers.json")));
    let known = |key_type: Option<&str>| match &file {
        Some(file) => target::read_taxpayers(file, key_type).map_err(Exit::usage),
        None => Ok(Vec::new()),
    };
    if !args.taxpayer.is_empty() {
        let known = known(None).unwrap_or_default();
        return args
            .taxpayer
            .iter()
            .map(|number| {
                let certificate = known
                    .iter()
                    .find(|taxpayer| *taxpayer.number == **number)
                    .and_then(|t| t.certificate.clone());
                target::taxpayer(number, certificate).ok_or_else(|| Exit::usage(target::not_a_number(number)))
            })
            .collect();
    }
    match args.key_type.as_deref() {
        Some("all") => known(None),
        Some(wanted) => known(Some(wanted)),
        None => {
            let rsa = known(Some("rsa2048"))?;
            if rsa.is_empty() { known(None) } else { Ok(rsa) }
        }
    }
}

fn metrics(args: &Args) -> Result<Option<http::Uri>, Exit> {
    let url = match (&args.metrics, &args.dir) {
        (Some(url), _) => url.clone(),
        (None, Some(dir)) => {
            let server = server_toml(dir)?.and_then(|parsed| parsed.server);
            match server.and_then(|server| server.admin_listen) {
                Some(listen) => format!("http://{listen}/metrics"),
                None => return Ok(None),
            }
        }
        (None, None) => return Ok(None),
    };
    let uri: http::Uri = url
        .parse()
        .map_err(|_| Exit::usage(format!("--metrics '{url}' is not a URL")))?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() {
        Ok(Some(uri))
    } else {
        Err(Exit::usage(format!(
            "--metrics '{url}': write http://host:port/metrics"
        )))
    }
}
