//! The data plane and the front-door program of Flurry.

pub mod account;
pub mod admin;
pub mod cli;
pub mod config;
pub mod front;
pub mod hot_restart;
pub mod limit;
pub mod load;
pub mod net;
mod picture;
pub mod policy;
pub mod pool;
mod proxy;
pub mod replay;
pub mod route;
pub mod server;
pub mod simulate;
mod sys;
pub mod tier;
mod timeline;
pub mod tls;
