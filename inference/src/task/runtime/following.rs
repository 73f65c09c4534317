//! Tables that features look up: caught up with before the first record, and followed then.

use super::{Backoff, Runtime};
use crate::stream_log::{Error, StreamLog};

impl<L: StreamLog> Runtime<L> {
    /// Until all that is in them now is read.
    pub(super) async fn catch_up_with_tables(&mut self) -> Result<(), String> {
        let Some(planned) = self.work.planned() else {
            return Ok(());
        };
        let count = planned.tables.names().len();
        self.tables = vec![Default::default(); count];
        if count == 0 {
            return Ok(());
        }
        let mut backoff = Backoff::new();
        loop {
            match self.read_tables().await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(Error::Fatal(reason)) => {
                    return Err(format!("reading tables failed: {reason}"));
                }
                Err(Error::Retry(reason)) => {
                    tracing::warn!(
                        topic = self.spec.name(),
                        reason,
                        "reading tables is tried again"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => {}
                        _ = self.stop.wait_for(|stop| *stop) => return Err("stopped".to_owned()),
                    }
                }
            }
        }
    }

    pub(super) async fn follow_tables(&mut self) -> Result<(), String> {
        match self.read_tables().await {
            Err(Error::Fatal(reason)) => Err(format!("reading tables failed: {reason}")),
            // It is looked again soon.
            Err(Error::Retry(_)) | Ok(_) => Ok(()),
        }
    }

    /// Reads on in each table; how many records there were.
    async fn read_tables(&mut self) -> Result<usize, Error> {
        let Some(planned) = self.work.planned() else {
            return Ok(0);
        };
        let mut read = 0;
        for (table, positions) in self.tables.iter_mut().enumerate() {
            let Some(name) = planned.tables.names().get(table) else {
                continue;
            };
            let records = self.log.read_table(name, positions).await?;
            read += records.len();
            let unread = planned.tables.take(table, &records);
            if unread > 0 {
                tracing::warn!(
                    topic = self.spec.name(),
                    table = name,
                    unread,
                    "table records can't be read"
                );
            }
        }
        Ok(read)
    }
}
