//! What each path answers. Only `/item/N` goes through the workers.
//!
//! ```text
//! /item/N                                     the site: costly once, then cached
//! /healthz                                    at once, whatever the load
//! /identity  /random                          what must differ between clones
//! /memory/fill?mib=&seed=   /memory/overwrite?seed=   /memory/checksum
//! /disk/write?mib=&seed=    /disk/overwrite?seed=     /disk/checksum
//! ```

use std::io;

use crate::cache::Cache;
use crate::http::{Request, Response};
use crate::memory::Buffer;
use crate::query::Target;
use crate::settings::Settings;
use crate::workers::Workers;
use crate::{disk, identity, sys};

const MIB: u64 = 1 << 20;
/// A test may not bring a guest of a few GiB down.
const MOST_MIB: u64 = 1024;

/// The application's state.
pub(crate) struct App {
    settings: Settings,
    workers: Workers,
    cache: Cache,
    buffer: Buffer,
}

impl App {
    pub(crate) fn new(settings: Settings) -> Self {
        let (workers, cache) = (Workers::new(settings.workers), Cache::new(settings.rounds));
        Self { settings, workers, cache, buffer: Buffer::default() }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: &Request) -> Response {
        if !request.is_get {
            return Response::refused(405, "only GET");
        }
        let target = Target::parse(&request.target);
        let answer = match target.path {
            "/healthz" => Ok(Response { body: "ok\n".into(), ..Response::json(String::new()) }),
            "/" => Ok(self.welcome()),
            "/identity" => Ok(Response::json(identity::json())),
            "/random" => random(),
            path if path.starts_with("/item/") => self.item(path),
            path if path.starts_with("/memory/") => self.memory(&target),
            path if path.starts_with("/disk/") => self.disk(&target),
            _ => Err((404, "no such page".into())),
        };
        answer.unwrap_or_else(|(status, why)| Response::refused(status, &why))
    }

    fn welcome(&self) -> Response {
        Response::json(format!(
            "{{\"app\":\"flurry-demo\",\"clone\":{},\"cached_items\":{}}}\n",
            identity::quoted(&identity::clone_name()),
            self.cache.len()
        ))
    }

    fn item(&self, path: &str) -> Answer {
        let number = path.strip_prefix("/item/").and_then(|n| n.parse().ok());
        let number: u64 = number.ok_or((400, "/item/N: N must be a number".to_string()))?;
        let (digest, hit) = {
            let _place = self.workers.take();
            std::thread::sleep(self.settings.wait);
            self.cache.item(number)
        };
        let body = format!("{{\"item\":{number},\"digest\":\"{digest:016x}\",\"cached\":{hit}}}\n");
        Ok(Response { cache: Some(hit), ..Response::json(body) })
    }

    fn memory(&self, target: &Target<'_>) -> Answer {
        match target.path {
            "/memory/fill" => {
                let (mib, seed) = (size(target)?, seed(target)?);
                self.buffer.fill((mib * MIB) as usize, seed);
            }
            "/memory/overwrite" => self.buffer.overwrite(seed(target)?),
            "/memory/checksum" => {}
            _ => return Err((404, "no such page".into())),
        }
        let (bytes, digest) = self.buffer.checksum();
        Ok(Response::json(format!("{{\"bytes\":{bytes},\"digest\":\"{digest}\"}}\n")))
    }

    fn disk(&self, target: &Target<'_>) -> Answer {
        let file = &self.settings.file;
        match target.path {
            "/disk/write" => disk::write(file, size(target)? * MIB, seed(target)?).map_err(failed)?,
            "/disk/overwrite" => disk::overwrite(file, seed(target)?).map_err(failed)?,
            "/disk/checksum" => {}
            _ => return Err((404, "no such page".into())),
        }
        let (bytes, digest, direct) = disk::checksum(file).map_err(failed)?;
        Ok(Response::json(format!("{{\"bytes\":{bytes},\"digest\":\"{digest}\",\"direct\":{direct}}}\n")))
    }
}

/// An answer, or a status and the reason.
type Answer = Result<Response, (u16, String)>;

fn random() -> Answer {
    let bytes = sys::random().map_err(failed)?;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(Response::json(format!("{{\"random\":\"{hex}\"}}\n")))
}

fn size(target: &Target<'_>) -> Result<u64, (u16, String)> {
    target.number("mib", 1, MOST_MIB).map_err(|why| (400, why))
}

fn seed(target: &Target<'_>) -> Result<u64, (u16, String)> {
    target.number("seed", 0, u64::MAX).map_err(|why| (400, why))
}

fn failed(error: io::Error) -> (u16, String) {
    (500, error.to_string())
}

#[cfg(test)]
mod tests;
