//! What the admin listener answers is what its OpenAPI document says.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::collections::BTreeSet;

use balancer::admin::status::{
    CloneStatus, DecisionStatus, EngineStatus, ForkStatus, ScalerStatus, SignalStatus,
};
use balancer::front::Front;
use serde_json::{Value, json};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status, media type and body of an answer.
async fn ask(front: &Front, method: &str, path: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(front.admin()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    let kind = kind.split(';').next().unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), kind.to_owned(), body.to_owned())
}

/// The part of JSON Schema that the document uses; anything else in it is a complaint.
fn check(schema: &Value, value: &Value, document: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = name.trim_start_matches('#');
        let target = document.pointer(target).unwrap_or_else(|| panic!("{name} leads nowhere"));
        return check(target, value, document, at, wrong);
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        let fits = |schema: &&Value| {
            let mut wrong = Vec::new();
            check(schema, value, document, at, &mut wrong);
            wrong.is_empty()
        };
        if one_of.iter().filter(fits).count() != 1 {
            wrong.push(format!("{at}: fits not exactly one of its schemas: {value}"));
        }
        return;
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: unknown type {other}"),
    };
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    if !kinds.iter().any(is) {
        wrong.push(format!("{at}: is no {kinds:?}: {value}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        if !words.contains(value) {
            wrong.push(format!("{at}: is none of {words:?}: {value}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, document, &format!("{at}[{index}]"), wrong);
    }
    check_fields(schema, value, document, at, wrong);
}

fn check_fields(schema: &Value, value: &Value, document: &Value, at: &str, wrong: &mut Vec<String>) {
    let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            wrong.push(format!("{at}.{name}: is missing"));
        }
    }
    for (name, value) in fields {
        match known.get(name) {
            Some(schema) => check(schema, value, document, &format!("{at}.{name}"), wrong),
            None => wrong.push(format!("{at}.{name}: is not in the document")),
        }
    }
}

async fn document(front: &Front) -> Value {
    serde_json::from_str(&ask(front, "GET", "/v1/openapi.json").await.2).unwrap()
}

/// A tier of VMs writes all there is to write.
fn write_as_a_tier(front: &Front) {
    let board = front.handles().board;
    let signals = vec![SignalStatus { signal: "in_flight".into(), ..Default::default() }];
    board.set_scaler(ScalerStatus { mode: "active".into(), signals, ..Default::default() });
    board.note_decision(DecisionStatus { action: "grow".into(), ..Default::default() });
    board.set_engine(|| EngineStatus {
        clones: vec![CloneStatus { pages_private: Some(1), ..Default::default() }],
        forks: vec![ForkStatus { began_at_seconds: Some(1.5), ..Default::default() }],
        ..Default::default()
    });
}

#[tokio::test]
async fn every_path_answers_what_the_document_says() {
    let backend = Backend::text("hello").await;
    let mut front = ready_front(&[backend.address], "").await;
    let mut asks = front.asks().unwrap();
    // As `flurry up` would: the first new configuration is taken, the next one is wrong.
    tokio::spawn(async move {
        let mut results = [Ok(2), Err("listen: is missing".to_owned())].into_iter();
        while let (Some(asked), Some(result)) = (asks.recv().await, results.next()) {
            asked.send(result).unwrap();
        }
    });
    let mut upgrades = front.upgrade_asks().unwrap();
    tokio::spawn(async move {
        let mut results = [Ok(4711), Err("a port is in use".to_owned())].into_iter();
        while let (Some(asked), Some(result)) = (upgrades.recv().await, results.next()) {
            asked.send(result).unwrap();
        }
    });
    let document = document(&front).await;
    for tier in [false, true] {
        if tier {
            write_as_a_tier(&front);
        }
        tokio::time::sleep(SECOND * 5 / 4).await;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let (status, kind, body) = ask(&front, &method.to_uppercase(), path).await;
                let described = &operation["responses"][&status]["content"][&kind]["schema"];
                assert!(!described.is_null(), "{method} {path}: {status} {kind} is not in the document");
                if kind == "application/json" {
                    let mut wrong = Vec::new();
                    check(described, &serde_json::from_str(&body).unwrap(), &document, path, &mut wrong);
                    assert!(wrong.is_empty(), "{wrong:#?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_schema_is_used_and_every_operation_has_a_name_of_its_own() {
    let document = document(&front(&[], "").await).await;
    let text = document.to_string();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name}");
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|it| it.as_object().unwrap().values());
    let names: Vec<&Value> = operations.map(|it| &it["operationId"]).collect();
    let different: BTreeSet<&str> = names.iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(names.len(), different.len());
}

#[test]
fn the_check_finds_what_is_missing_unknown_or_of_another_type() {
    let schema = json!({
        "type": "object", "required": ["a", "b"],
        "properties": { "a": { "type": "integer" }, "b": { "type": ["string", "null"] }, "c": { "enum": ["x"], "type": "string" } }
    });
    let mut wrong = Vec::new();
    check(&schema, &json!({ "a": 1.5, "c": "y", "d": 1 }), &json!({}), "it", &mut wrong);
    let found: Vec<&str> = wrong.iter().map(|it| it.split(':').next().unwrap()).collect();
    assert_eq!(found, ["it.\"b\"", "it.a", "it.c", "it.d"]);
}
