//! What the server says about itself while it is loaded: CPU, CPU inside the token's calls, memory.
//!
//! Read from its Prometheus page (text format 0.0.4) over plain HTTP, as Prometheus would. A server without the page loses the report
//! these figures and nothing else.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

const PATIENCE: Duration = Duration::from_millis(500);
/// A metrics page beyond this is none of ours.
const MAX_PAGE: usize = 4 * 1024 * 1024;

/// One look at the page; counters in seconds since the server began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    pub(crate) cpu: f64,
    pub(crate) token_cpu: Option<f64>,
    pub(crate) rss: Option<f64>,
}

/// Looks at a metrics page from time to time.
#[derive(Debug)]
pub(crate) struct Watch {
    url: http::Uri,
    runtime: Runtime,
    looks: Vec<Look>,
    /// What the server had counted before it last began again, CPU and token CPU.
    before: (f64, f64),
    /// How often it began again.
    pub(crate) restarts: usize,
    pub(crate) last_problem: Option<String>,
}

impl Watch {
    pub(crate) fn new(url: http::Uri) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            url,
            runtime,
            looks: Vec::new(),
            before: (0.0, 0.0),
            restarts: 0,
            last_problem: None,
        })
    }

    /// Looks now, if the last look is older than `after`.
    pub(crate) fn look(&mut self, after: Duration) {
        if self.looks.last().is_some_and(|last| last.at.elapsed() < after) {
            return;
        }
        let page = self
            .runtime
            .block_on(async { timeout(PATIENCE, fetch(&self.url)).await });
        match page {
            Ok(Ok(page)) => match read(&page, Instant::now()) {
                Some(look) => self.keep(look),
                None => self.last_problem = Some(format!("{} shows no process_cpu_seconds_total", self.url)),
            },
            Ok(Err(problem)) => self.last_problem = Some(format!("{}: {problem}", self.url)),
            Err(_) => self.last_problem = Some(format!("{} did not answer within {PATIENCE:?}", self.url)),
        }
    }

    /// Keeps a look. A counter that has fallen began again with its process, as Prometheus takes it: what it counts is on top of what it had
    /// counted; what it counted between the last look and its end is lost.
    fn keep(&mut self, look: Look) {
        if let Some(last) = self.looks.last()
            && look.cpu + self.before.0 < last.cpu
        {
            self.before = (last.cpu, last.token_cpu.unwrap_or_default());
            self.restarts += 1;
        }
        let (cpu, token_before) = self.before;
        self.looks.push(Look {
            cpu: look.cpu + cpu,
            token_cpu: look.token_cpu.map(|token| token + token_before),
            ..look
        });
    }

    /// CPU and token CPU seconds spent between two instants, by interpolation; None without a look on both sides.
    pub(crate) fn spent(&self, from: Instant, to: Instant) -> Option<(f64, Option<f64>)> {
        let (a, b) = (self.at(from)?, self.at(to)?);
        let token = a.token_cpu.zip(b.token_cpu).map(|(a, b)| b - a);
        // A token's counters may come later than the server's: no figure is better than a wrong one.
        (b.cpu >= a.cpu && token.is_none_or(|t| t >= 0.0)).then_some((b.cpu - a.cpu, token))
    }

    /// True where the CPU counter was never seen between two whole seconds: then it is known to a second and no better.
    pub(crate) fn is_coarse(&self) -> bool {
        self.looks.iter().all(|look| look.cpu.fract() == 0.0)
    }

    /// The most memory seen.
    pub(crate) fn rss(&self) -> Option<u64> {
        self.looks
            .iter()
            .filter_map(|look| look.rss)
            .reduce(f64::max)
            .map(|bytes| bytes as u64)
    }

    pub(crate) fn looks(&self) -> &[Look] {
        &self.looks
    }

    fn at(&self, instant: Instant) -> Option<Look> {
        let after = self.looks.iter().position(|look| look.at >= instant)?;
        let b = self.looks[after];
        let a = self.looks[after.checked_sub(1)?];
        let share = instant.duration_since(a.at).as_secs_f64() / b.at.duration_since(a.at).as_secs_f64().max(1e-9);
        let between = |a: f64, b: f64| a + (b - a) * share;
        Some(Look {
            at: instant,
            cpu: between(a.cpu, b.cpu),
            token_cpu: a.token_cpu.zip(b.token_cpu).map(|(a, b)| between(a, b)),
            rss: b.rss,
        })
    }
}

async fn fetch(url: &http::Uri) -> Result<String, String> {
    let host = url.host().ok_or("no host")?;
    let tcp = TcpStream::connect((host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| error.to_string())?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(|error| error.to_string())?;
    let request = http::Request::get(url.path_and_query().map_or("/metrics", http::uri::PathAndQuery::as_str))
        .header(http::header::HOST, host)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = requests
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_PAGE)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "is not text".to_owned())
    };
    tokio::select! {
        page = exchange => page,
        ended = connection => Err(ended.err().map_or_else(|| "closed".to_owned(), |error| error.to_string())),
    }
}

fn read(page: &str, at: Instant) -> Option<Look> {
    Some(Look {
        at,
        // The usual metric, by the usual crate, counts whole seconds: a server that has a finer one is asked for that.
        cpu: sum(page, "muhurdar_cpu_seconds_total").or_else(|| sum(page, "process_cpu_seconds_total"))?,
        token_cpu: sum(page, "muhurdar_token_cpu_seconds_total"),
        rss: sum(page, "process_resident_memory_bytes"),
    })
}

/// The sum of a metric over its labels.
fn sum(page: &str, name: &str) -> Option<f64> {
    page.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.as_bytes().first()? {
                b' ' => rest,
                b'{' => &rest[rest.rfind('}')? + 1..],
                _ => return None,
            };
            value.split_ascii_whitespace().next()?.parse::<f64>().ok()
        })
        .reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_its_namesakes() {
        let page =
            "# HELP a_total x\na_total{token=\"a } b\"} 1.5\na_total{token=\"c\"} 2 1700000000\na_total_more 7\n";
        assert_eq!(sum(page, "a_total"), Some(3.5));
        assert_eq!(sum(page, "b_total"), None);
    }

    #[test]
    fn a_finer_cpu_counter_is_preferred_and_a_coarse_one_is_told() {
        let look = |page: &str| read(page, Instant::now()).unwrap();
        let mut watch = Watch::new("http://127.0.0.1:1/metrics".parse().unwrap()).unwrap();
        watch.looks = vec![
            look("process_cpu_seconds_total 3\n"),
            look("process_cpu_seconds_total 4\n"),
        ];
        assert!(watch.is_coarse());
        watch
            .looks
            .push(look("process_cpu_seconds_total 4\nmuhurdar_cpu_seconds_total 4.25\n"));
        assert!(!watch.is_coarse());
    }

    #[test]
    fn a_server_that_began_again_counts_on_top_of_what_it_had_counted() {
        let start = Instant::now();
        let mut watch = Watch::new("http://127.0.0.1:1/metrics".parse().unwrap()).unwrap();
        for (second, cpu) in [(0, 1.0), (1, 5.0), (2, 0.5), (3, 2.5), (4, 0.25)] {
            watch.keep(Look {
                at: start + Duration::from_secs(second),
                cpu,
                token_cpu: Some(cpu / 2.0),
                rss: None,
            });
        }
        let counted: Vec<f64> = watch.looks().iter().map(|look| look.cpu).collect();
        assert_eq!((counted, watch.restarts), (vec![1.0, 5.0, 5.5, 7.5, 7.75], 2));
        let (cpu, token) = watch
            .spent(start + Duration::from_millis(1), start + Duration::from_secs(4))
            .unwrap();
        assert!(
            (cpu - 6.746).abs() < 1e-6 && (token.unwrap() - 3.373).abs() < 1e-6,
            "{cpu}"
        );
    }

    #[test]
    fn what_was_spent_is_interpolated_between_looks() {
        let start = Instant::now();
        let look = |second: u64, cpu| Look {
            at: start + Duration::from_secs(second),
            cpu,
            token_cpu: Some(cpu / 2.0),
            rss: Some(1.0),
        };
        let mut watch = Watch::new("http://127.0.0.1:1/metrics".parse().unwrap()).unwrap();
        watch.looks = vec![look(0, 0.0), look(2, 2.0), look(4, 6.0)];
        let (cpu, token) = watch
            .spent(start + Duration::from_secs(1), start + Duration::from_secs(3))
            .unwrap();
        assert!((cpu - 3.0).abs() < 1e-9 && (token.unwrap() - 1.5).abs() < 1e-9);
        assert!(watch.spent(start, start + Duration::from_secs(5)).is_none());
    }
}
