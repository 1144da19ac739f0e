//! The demo application that runs behind nginx in the demo guest. Plain threads, one per connection.
//!
//! ```text
//! connection thread: parse -> route -> /item/N: wait for one of the workers' places -> answer
//!                                      others:  answer at once
//! ```
//!
//! One guest's capacity is workers / wait, whatever the CPU: 4 / 40 ms = 100 requests a second.

mod cache;
mod disk;
mod http;
mod identity;
mod memory;
mod pattern;
mod query;
mod routes;
mod server;
mod settings;
mod sys;
mod workers;

use std::process::ExitCode;

use settings::Settings;

fn main() -> ExitCode {
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(complaints) => {
            for complaint in complaints {
                eprintln!("flurry-demo: {complaint}");
            }
            return ExitCode::from(2);
        }
    };
    eprintln!("flurry-demo: {}", server::serve(&settings));
    ExitCode::FAILURE
}
