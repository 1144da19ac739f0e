//! Asks Prometheus for the signals of a policy that come from there.
//!
//! One task for each query, on a keep-alive connection. What is no single number is no
//! value: the signal grows stale, and the policy says what that means. A query that
//! begins or ceases to fail is told once.

use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use scaler::{CustomSignal, Name, Origin};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::replay::client::{Connection, Endpoint, Target, get_document};

/// What a query came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answered {
    /// The signal.
    pub(super) name: Name,
    /// Its value, or why there is none.
    pub(super) value: Result<f64, String>,
}

/// A query of one signal.
struct Query {
    name: Name,
    url: String,
    path: String,
    timeout: Duration,
    /// Where it answered last.
    endpoint: Option<Endpoint>,
    idle: Option<Connection>,
}

/// Starts a task for every signal that comes from a Prometheus; dropping the set ends them.
pub(super) fn start(
    signals: &[CustomSignal],
    tell: impl Fn(Answered) + Clone + Send + Sync + 'static,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for signal in signals {
        let Origin::Prometheus { url, query, every, timeout } = &signal.origin else { continue };
        let path = format!("/api/v1/query?query={}", encoded(query));
        let query = Query {
            name: signal.name,
            url: url.clone(),
            path,
            timeout: *timeout,
            endpoint: None,
            idle: None,
        };
        tasks.spawn(ask_for_ever(query, *every, tell.clone()));
    }
    tasks
}

async fn ask_for_ever(mut query: Query, every: Duration, tell: impl Fn(Answered)) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let limit = query.timeout;
        let asked = tokio::time::timeout(limit, query.ask()).await;
        let value = asked.unwrap_or_else(|_| {
            (query.endpoint, query.idle) = (None, None);
            Err(format!("no answer within {limit:?}"))
        });
        match &value {
            Err(why) if !failing => {
                tracing::warn!(signal = %query.name, url = query.url, why, "a signal has no value");
            }
            Ok(value) if failing => tracing::info!(signal = %query.name, value, "a signal has a value again"),
            _ => {}
        }
        failing = value.is_err();
        tell(Answered { name: query.name, value });
    }
}

impl Query {
    async fn ask(&mut self) -> Result<f64, String> {
        let endpoint = match self.endpoint.take() {
            Some(endpoint) => endpoint,
            None => self.url.parse::<Target>()?.resolve().await?,
        };
        let mut request = endpoint.get(&self.path)?;
        let agent = HeaderValue::from_static(concat!("flurry/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let (status, page, idle) =
            get_document(&endpoint, request, self.idle.take()).await.map_err(|(_, why)| why)?;
        // Whoever does not answer is looked for anew the next time.
        (self.endpoint, self.idle) = (Some(endpoint), idle);
        if !status.is_success() {
            return Err(format!("answered {status}: {}", shortened(&String::from_utf8_lossy(&page))));
        }
        value(&page)
    }
}

/// The answer of a Prometheus, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Point),
    Vector(Vec<Series>),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    value: Point,
}

/// A time and a value; numbers come as text, for they may be NaN.
#[derive(Deserialize)]
struct Point(IgnoredAny, String);

/// The one number of an answer.
fn value(page: &[u8]) -> Result<f64, String> {
    let page: Page =
        serde_json::from_slice(page).map_err(|error| format!("answered with no result: {error}"))?;
    let point = match page.data {
        Data::Scalar(point) => point,
        Data::Vector(mut series) if series.len() == 1 => series.remove(0).value,
        Data::Vector(series) => {
            return Err(format!("the query gives {} series, and one is needed", series.len()));
        }
        Data::Matrix(_) | Data::String(_) => return Err("the query gives no instant number".to_owned()),
    };
    let value: f64 = point.1.parse().map_err(|_| format!("{:?} is no number", point.1))?;
    if value.is_finite() { Ok(value) } else { Err(format!("the query gives {value}")) }
}

/// Percent-encodes a query for a URL.
fn encoded(query: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    query.bytes().map(encode).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_scalar_or_a_vector_of_one_is_a_value() {
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"42"]}}"#;
        assert_eq!(value(scalar), Ok(42.0));
        let vector = br#"{"status":"success","data":{"resultType":"vector","result":
            [{"metric":{"job":"a"},"value":[1.5,"0.25"]}]}}"#;
        assert_eq!(value(vector), Ok(0.25));
    }

    #[test]
    fn anything_else_is_no_value_and_says_why() {
        for (data, why) in [
            (r#"{"resultType":"vector","result":[]}"#, "gives 0 series"),
            (r#"{"resultType":"matrix","result":[]}"#, "no instant number"),
            (r#"{"resultType":"scalar","result":[1,"NaN"]}"#, "gives NaN"),
            (r#"{"resultType":"scalar","result":[1,"+Inf"]}"#, "gives inf"),
            (r#"{"resultType":"scalar","result":[1,"x"]}"#, "is no number"),
            (r#"{"resultType":"other","result":1}"#, "answered with no result"),
        ] {
            let refused = value(format!(r#"{{"status":"success","data":{data}}}"#).as_bytes());
            assert!(refused.as_ref().is_err_and(|found| found.contains(why)), "{data}: {refused:?}");
        }
        assert!(value(b"<html>").is_err_and(|why| why.contains("no result")));
    }

    /// A server that gives one answer to each request, on a connection of its own.
    async fn server(answers: &'static [&'static str]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        tokio::spawn(async move {
            // The first connection only looks whether someone is there.
            let _ = listener.accept().await.unwrap();
            for answer in answers {
                let mut head = [0; 2048];
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..count]).into_owned();
                assert!(head.starts_with("GET /base/api/v1/query?query=sum%28jobs%29 HTTP/1.1"), "{head}");
                assert!(head.contains("user-agent: flurry/"), "{head}");
                let page = format!("HTTP/1.1 {answer}");
                stream.write_all(page.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        url
    }

    #[tokio::test]
    async fn a_prometheus_is_asked_again_and_again_and_may_fail_meanwhile() {
        const GOOD: &str = "200 OK\r\nconnection: close\r\ncontent-length: 69\r\n\r\n\
            {\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"42\"]}}";
        const BAD: &str = "503 Busy\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlate";
        let origin = Origin::Prometheus {
            url: server(&[GOOD, BAD, GOOD]).await,
            query: "sum(jobs)".to_owned(),
            every: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
        };
        let name = Name::new("jobs").unwrap();
        let measure = scaler::Measure::Total;
        let signal = CustomSignal { name, origin, target: None, measure, activation: None };
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let _tasks = start(&[signal], move |answered: Answered| tell.send(answered.value).unwrap());
        assert_eq!(told.recv().await.unwrap(), Ok(42.0));
        assert_eq!(told.recv().await.unwrap(), Err("answered 503 Service Unavailable: late".to_owned()));
        assert_eq!(told.recv().await.unwrap(), Ok(42.0));
        assert_eq!(told.recv().await.unwrap(), Err("no answer within 500ms".to_owned()));
    }

    #[test]
    fn a_query_is_encoded_for_its_url() {
        assert_eq!(
            encoded("sum(rate(a{b=\"c\"}[1m])) > 0"),
            "sum%28rate%28a%7Bb%3D%22c%22%7D%5B1m%5D%29%29%20%3E%200"
        );
    }
}
