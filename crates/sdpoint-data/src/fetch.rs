//! Download of the official CIFAR archives.
//!
//! An archive is downloaded to a `.part` file, which a later attempt resumes. It
//! is unpacked only if its checksum is the published one, and only the members
//! that belong to the data set.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::bufread::MultiGzDecoder;
use md5::{Digest, Md5};
use ureq::http::{StatusCode, header};

use sdpoint_core::digest::hex;
use sdpoint_core::file::{open, open_with};

use crate::cifar::{CifarKind, Form};
use crate::error::DataError;
use crate::file::open_file;

/// The address of the official archives.
pub const OFFICIAL_ADDRESS: &str = "https://www.cs.toronto.edu/~kriz";

/// The number of times a broken connection is retried.
const ATTEMPTS: usize = 5;

/// The largest archive that is downloaded; the official ones have 170 MB.
const MAX_ARCHIVE: u64 = 1 << 30;

/// The largest member without a size of its own: a list of class names.
const MAX_TEXT: u64 = 1 << 16;

const CHUNK: usize = 1 << 16;

/// The result of [`fetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The archive was downloaded, checked and unpacked.
    Downloaded,
    /// All files were there already.
    AlreadyThere,
}

/// Downloads a data set's official files to `folder`, where
/// [`Source::Cifar10`](crate::Source::Cifar10) finds them. Existing files are
/// kept and never replaced. `address` is [`OFFICIAL_ADDRESS`] or that of a
/// mirror; the archive's name is appended to it. `progress` is called with the
/// number of bytes received and, if known, the total.
///
/// # Errors
/// If the server cannot be reached, refuses, or disconnects too often; the
/// checksum is not the published one; a file with other content exists; or a
/// file cannot be written.
pub fn fetch(
    kind: CifarKind,
    folder: &Path,
    address: &str,
    progress: impl FnMut(u64, Option<u64>),
) -> Result<Fetched, DataError> {
    // The checksums are those of https://www.cs.toronto.edu/~kriz/cifar.html.
    let (name, md5) = match kind {
        CifarKind::Cifar10 => ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
        CifarKind::Cifar100 => (
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        ),
    };
    let archive = Archive {
        name,
        md5: md5.to_owned(),
        folder: kind.folder(Form::Binary),
        files: kind.all_files(),
    };
    archive.fetch(folder, address, progress)
}

/// An archive on a server.
struct Archive {
    name: &'static str,
    /// The published checksum, in hexadecimal.
    md5: String,
    /// The folder that all its files are in.
    folder: &'static str,
    /// The files, with their sizes where these are known.
    files: Vec<(&'static str, Option<u64>)>,
}

impl Archive {
    fn fetch(
        &self,
        folder: &Path,
        address: &str,
        mut progress: impl FnMut(u64, Option<u64>),
    ) -> Result<Fetched, DataError> {
        let target = folder.join(self.folder);
        if self.is_complete(&target) {
            return Ok(Fetched::AlreadyThere);
        }
        self.refuse_other_files(&target)?;
        fs::create_dir_all(&target).map_err(DataError::io(&target))?;
        let url = format!("{}/{}", address.trim_end_matches('/'), self.name);
        let part = folder.join(format!("{}.part", self.name));
        download(&url, &part, &mut progress)?;
        let actual = checksum(&part).map_err(DataError::io(&part))?;
        if actual != self.md5 {
            fs::remove_file(&part).map_err(DataError::io(&part))?;
            return Err(DataError::Checksum {
                url,
                expected: self.md5.clone(),
                actual,
            });
        }
        self.unpack(&part, &target)?;
        fs::remove_file(&part).map_err(DataError::io(&part))?;
        Ok(Fetched::Downloaded)
    }

    fn is_complete(&self, target: &Path) -> bool {
        self.files.iter().all(|(name, size)| {
            fs::metadata(target.join(name))
                .is_ok_and(|file| file.is_file() && size.is_none_or(|size| file.len() == size))
        })
    }

    /// Checks, before a long download, that no existing file would be replaced.
    fn refuse_other_files(&self, target: &Path) -> Result<(), DataError> {
        for (name, size) in &self.files {
            let path = target.join(name);
            let there = fs::metadata(&path);
            let fits = |file: &fs::Metadata| size.is_none_or(|size| file.len() == size);
            if there.is_ok_and(|file| !file.is_file() || !fits(&file)) {
                return Err(in_the_way(&path));
            }
        }
        Ok(())
    }

    /// Writes the data set's files from the archive at `part` to `target`; other
    /// members are skipped.
    fn unpack(&self, part: &Path, target: &Path) -> Result<(), DataError> {
        let malformed = |problem: String| DataError::Malformed {
            path: part.to_owned(),
            problem,
        };
        let unsound = |error: io::Error| match error.raw_os_error() {
            Some(_) => DataError::io(part)(error),
            None => malformed("it is not a tar.gz archive, or damaged; fetch it again".to_owned()),
        };
        let (file, _) = open_file(part)?;
        let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
        for entry in archive.entries().map_err(unsound)? {
            let mut entry = entry.map_err(unsound)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let inside = path
                .strip_prefix("./")
                .unwrap_or(&path)
                .strip_prefix(self.folder);
            let Some(name) = inside.and_then(|inside| inside.strip_prefix('/')) else {
                continue;
            };
            let Some(&(name, size)) = self.files.iter().find(|(file, _)| *file == name) else {
                continue;
            };
            let fits = match size {
                Some(size) => entry.size() == size,
                None => entry.size() <= MAX_TEXT,
            };
            if !entry.header().entry_type().is_file() || !fits {
                return Err(malformed(format!(
                    "its member {path} is not the expected file"
                )));
            }
            let path = target.join(name);
            write_new(&path, &mut entry)?;
        }
        if self.is_complete(target) {
            Ok(())
        } else {
            Err(malformed(
                "it does not hold all files of the data set".to_owned(),
            ))
        }
    }
}

/// The error where a file would have to be replaced.
fn in_the_way(path: &Path) -> DataError {
    DataError::io(path)(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "it exists and is not the official file, which fetching does not replace; \
         move it away or choose another folder",
    ))
}

/// Writes a file under a temporary name and renames it when it is complete. An
/// existing file must have the same content.
fn write_new(path: &Path, content: &mut impl Read) -> Result<(), DataError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true);
    let mut file = open_with(&aside, options).map_err(DataError::file(&aside))?;
    let written = io::copy(content, &mut file).and_then(|_| file.sync_all());
    written.map_err(DataError::io(&aside))?;
    if !path.exists() {
        return fs::rename(&aside, path).map_err(DataError::io(path));
    }
    let same = checksum(path).and_then(|old| Ok(old == checksum(&aside)?));
    let same = same.map_err(DataError::io(path))?;
    fs::remove_file(&aside).map_err(DataError::io(&aside))?;
    if same { Ok(()) } else { Err(in_the_way(path)) }
}

/// Completes the file at `part` with the bytes that it lacks.
fn download(
    url: &str,
    part: &Path,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("sdpoint/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .new_agent();
    let mut options = File::options();
    let options = options.create(true).append(true);
    let mut file = open_with(part, options).map_err(DataError::file(part))?;
    let mut attempt = 1;
    loop {
        match transfer(&agent, url, &mut file, progress) {
            Ok(()) => return file.sync_all().map_err(DataError::io(part)),
            Err(Failure::File(error)) => return Err(DataError::io(part)(error)),
            Err(Failure::Refused(problem)) => {
                return Err(DataError::Download {
                    url: url.to_owned(),
                    problem,
                });
            }
            Err(Failure::Broken(problem)) if attempt == ATTEMPTS => {
                return Err(DataError::Download {
                    url: url.to_owned(),
                    problem: format!(
                        "{problem}; gave up after {ATTEMPTS} attempts; \
                         the next run goes on from what is there"
                    ),
                });
            }
            Err(Failure::Broken(_)) => attempt += 1,
        }
    }
}

/// Why a transfer ended early.
enum Failure {
    /// The connection: worth another attempt.
    Broken(String),
    /// The server's answer: another attempt would get the same.
    Refused(String),
    /// The file being written.
    File(io::Error),
}

/// Appends to `file` the bytes that it lacks, or starts over if the server sends
/// the whole file.
fn transfer(
    agent: &ureq::Agent,
    url: &str,
    file: &mut File,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let mut have = file.metadata().map_err(Failure::File)?.len();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Refused(e.to_string()),
        _ => Failure::Broken(e.to_string()),
    })?;
    match response.status() {
        StatusCode::OK => {
            file.set_len(0).map_err(Failure::File)?;
            have = 0;
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(header::CONTENT_RANGE);
            let range = range.and_then(|r| r.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {have}-")) {
                let asked = format!("asked for bytes from {have} on, the server sent `{range}`");
                return Err(Failure::Refused(asked));
            }
        }
        // There is nothing beyond: the checksum tells whether it is the file.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        status => {
            return Err(Failure::Refused(format!(
                "the server answers {status}; check the address or try later"
            )));
        }
    }
    let total = response
        .body()
        .content_length()
        .map(|rest| have.saturating_add(rest));
    let mut body = response.body_mut().as_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        progress(have, total);
        let count = body
            .read(&mut chunk)
            .map_err(|e| Failure::Broken(e.to_string()))?;
        if count == 0 {
            break;
        }
        file.write_all(&chunk[..count]).map_err(Failure::File)?;
        have += count as u64;
        if have > MAX_ARCHIVE {
            return Err(Failure::Refused(format!(
                "the server sends over {MAX_ARCHIVE} bytes"
            )));
        }
    }
    if total.is_some_and(|total| have < total) {
        return Err(Failure::Broken("the connection broke off".to_owned()));
    }
    Ok(())
}

/// A file's MD5 checksum in hexadecimal. It detects transmission errors only:
/// MD5 does not protect against forgery, but it is what is published.
fn checksum(path: &Path) -> io::Result<String> {
    let (mut file, _) = open(path)?;
    let mut digest = Md5::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        digest.update(&chunk[..count]);
    }
    Ok(hex(&digest.finalize()))
}

#[cfg(test)]
mod tests;
