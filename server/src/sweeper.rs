//! Removes, from time to time, what nothing in the repository refers to: what cut pushes and killed
//! servers have left behind.

use std::time::Duration;

use sqlrsync_repository::{Repository, SweepOptions};
use tokio::task::{JoinHandle, spawn_blocking};

/// Sweeps at the start, before anything is served: with the data folder's lock held no other server writes
/// to the repository, so that what it may be about to commit need not be waited for.
pub async fn sweep_alone(repository: &Repository) {
    sweep(repository, SweepOptions::ALONE).await;
}

/// Sweeps every `interval`, beside running pushes, until the task is aborted.
pub fn start(repository: Repository, interval: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            sweep(&repository, SweepOptions::default()).await;
        }
    })
}

async fn sweep(repository: &Repository, options: SweepOptions) {
    let repository = repository.clone();
    match spawn_blocking(move || repository.sweep(options)).await {
        Ok(Ok(report)) => tracing::info!(
            objects = report.objects_removed,
            bytes = report.bytes_removed,
            staging_files = report.staging_files_removed,
            replicas_skipped = report.replicas_skipped.len(),
            "swept"
        ),
        Ok(Err(error)) => tracing::error!(%error, "cannot sweep"),
        Err(error) => tracing::error!(%error, "sweeping panicked"),
    }
}
