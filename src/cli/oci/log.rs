//! Errors and warnings for an engine, which reads them from a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use super::args::LogFormat;

/// Where errors and warnings go besides standard error.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    format: LogFormat,
}

impl Log {
    /// Opens the file, which is made if need be and appended to.
    pub(super) fn open(path: Option<&Path>, format: LogFormat) -> std::io::Result<Self> {
        let open = |path| File::options().create(true).append(true).open(path);
        Ok(Self { file: path.map(open).transpose()?, format })
    }

    pub(super) fn error(&mut self, text: &str) {
        self.say("error", text);
    }

    pub(super) fn warning(&mut self, text: &str) {
        self.say("warning", text);
    }

    fn say(&mut self, level: &str, text: &str) {
        eprintln!("unladen-oci: {level}: {text}");
        let Some(file) = &mut self.file else { return };
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({"level": level, "msg": text, "time": time}).to_string()
            }
            LogFormat::Text => format!("time={time:?} level={level} msg={text:?}"),
        };
        // What cannot be written to the log has been said on standard error.
        let _ = writeln!(file, "{line}");
    }
}
