//! Weights, peak EWMA, keys and cookies.

use std::net::SocketAddr;

use crate::support::*;
use crate::{curl, open};

async fn named(names: [&'static str; 3]) -> ([Backend; 3], Vec<SocketAddr>) {
    let backends =
        [Backend::text(names[0]).await, Backend::text(names[1]).await, Backend::text(names[2]).await];
    let addresses = backends.iter().map(|it| it.address).collect();
    (backends, addresses)
}

fn list(addresses: &[SocketAddr]) -> String {
    let list: Vec<String> = addresses.iter().map(|it| format!("'{it}'")).collect();
    format!("backends: [{}]\n", list.join(", "))
}

#[tokio::test]
async fn backends_get_requests_as_their_weights_say_also_after_a_new_configuration() {
    let (backends, at) = named(["a", "b", "c"]).await;
    let site = Site::new();
    let text = |weight: u32| {
        format!(
            "listen: ['127.0.0.1:0']\nbalance: {{policy: round_robin}}\n\
             backends: [{{address: '{}', weight: {weight}}}, '{}', {{address: '{}'}}]\n",
            at[0], at[1], at[2]
        )
    };
    let text_without_listen = |weight| text(weight).split_once('\n').unwrap().1.to_owned();
    let mut front = open(&site, &text_without_listen(5), &at).await;
    let mut wire = Wire::connect(&front).await;
    let mut order = String::new();
    for _ in 0..7 {
        order += &wire.get("/").await.1;
    }
    assert_eq!(order, "aabacaa");
    front.reload(site.config(&text(1))).unwrap();
    let before: Vec<u64> = backends.iter().map(Backend::count).collect();
    let mut wire = Wire::connect(&front).await;
    for _ in 0..9 {
        wire.get("/").await;
    }
    let got: Vec<u64> = backends.iter().zip(before).map(|(it, before)| it.count() - before).collect();
    assert_eq!(got, [3, 3, 3]);
}

#[tokio::test]
async fn peak_ewma_leaves_a_slow_backend_alone() {
    let slow = |_| async {
        tokio::time::sleep(SECOND / 5).await;
        ok("slow")
    };
    let (quick, slow) = (Backend::text("quick").await, Backend::serve(slow).await);
    let at = [quick.address, slow.address];
    let front = ready_front(&at, "balance: {policy: peak_ewma}").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..60 {
        wire.get("/").await;
    }
    assert!(slow.count() <= 3 && quick.count() >= 57, "{} and {}", slow.count(), quick.count());
}

#[tokio::test]
async fn peak_ewma_does_not_take_failing_at_once_for_quick() {
    let fails = |_| async { http::Response::builder().status(500).body("no".into()).unwrap() };
    let works = |_| async {
        tokio::time::sleep(SECOND / 200).await;
        ok("works")
    };
    let (fails, works) = (Backend::serve(fails).await, Backend::serve(works).await);
    let front = ready_front(&[fails.address, works.address], "balance: {policy: peak_ewma}").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..60 {
        wire.get("/").await;
    }
    assert!(fails.count() <= 3, "{} and {}", fails.count(), works.count());
}

#[tokio::test]
async fn requests_with_the_same_cookie_meet_the_same_backend() {
    let (_backends, at) = named(["a", "b", "c"]).await;
    let extra = "balance: {policy: hash, by: cookie, cookie: user}";
    let front = ready_front(&at, extra).await;
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..12 {
        let mut wire = Wire::connect(&front).await;
        let ask = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; user={user}\r\n\r\n");
        wire.send(&ask).await;
        let first = wire.answer().await.1;
        for _ in 0..5 {
            wire.send(&ask).await;
            assert_eq!(wire.answer().await.1, first);
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "keys are spread");
}

#[tokio::test]
async fn a_client_sticks_to_its_backend_until_that_one_is_gone() {
    let (mut backends, at) = named(["a", "b", "c"]).await;
    let site = Site::new();
    let front = open(&site, &format!("{}sticky: {{cookie: at, max_age: 1h}}", list(&at)), &at).await;
    let (url, jar) = (format!("http://{}/", front.listen()[0]), site.path("jar"));
    let ask = ["-i", "-c", &jar, "-b", &jar, &url];
    let first = curl(&ask).await;
    let cookie = first.lines().find(|line| line.starts_with("set-cookie: at=")).unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; Max-Age=3600; SameSite=Lax"), "{cookie}");
    assert!(!cookie.contains("Secure") && !cookie.contains("127.0.0.1"), "{cookie}");
    let mine = first.lines().last().unwrap().to_owned();
    for _ in 0..10 {
        let again = curl(&ask).await;
        assert_eq!(again.lines().last(), Some(mine.as_str()));
        assert!(!again.contains("set-cookie"), "it knows: {again}");
    }
    // Who shows something made up is treated as one who shows nothing.
    let made_up = curl(&["-i", "-H", "Cookie: at=00112233445566778899aabbccddeeff", &url]).await;
    assert!(made_up.contains("set-cookie: at="), "{made_up}");

    let index = ["a", "b", "c"].iter().position(|it| *it == mine).unwrap();
    let gone = Backend::text("nobody").await;
    drop(std::mem::replace(&mut backends[index], gone));
    let after = curl(&ask).await;
    assert!(after.starts_with("HTTP/1.1 200") && after.contains("set-cookie: at="), "{after}");
    let new = after.lines().last().unwrap();
    assert_ne!(new, mine);
    assert_eq!(curl(&ask).await.lines().last(), Some(new), "and it sticks to the new one");
}

#[tokio::test]
async fn a_cookie_is_for_tls_only_if_it_came_by_tls_and_a_secret_outlives_the_process() {
    let (_backends, at) = named(["a", "b", "c"]).await;
    let site = Site::new();
    site.certificate("a.test");
    site.write("secret", "0123456789abcdef");
    let text = format!(
        "listen: [{{address: '127.0.0.1:0', tls: {{certificates: [{{chain: a.test.pem, key: a.test.key}}]}}}}]\n\
         {}sticky: {{secret_file: secret, same_site: none}}\n",
        list(&at)
    );
    let mut answers = Vec::new();
    let jar = site.path("jar");
    for _ in 0..2 {
        let front = site.open(&text).await;
        let pool = front.handles().pool;
        eventually("all are ready", || pool.snapshot().ready.len() == 3).await;
        let port = front.listen()[0].port();
        let (url, to) = (format!("https://a.test:{port}/"), format!("a.test:{port}:127.0.0.1"));
        let roots = site.path("a.test.pem");
        for _ in 0..4 {
            let ask = ["-i", "--cacert", &roots, "--resolve", &to, "-c", &jar, "-b", &jar, &url];
            answers.push(curl(&ask).await);
        }
        front.close().await;
    }
    assert!(answers[0].contains("set-cookie: flurry=") && answers[0].contains("; Secure; SameSite=None"));
    let names: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer.lines().last().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 1, "{answers:?}");
}
