//! The service's ends, as the plan has them.

use std::convert::Infallible;

use sandbox::service::Service;

use crate::run::Run;

/// Carries the plan's kills out, and watches over the service after that, without end.
///
/// # Errors
/// The service ended by itself, or did not come back.
pub async fn supervise(mut service: Service, run: &Run) -> anyhow::Result<Infallible> {
    for kill in &run.plan.kills {
        if !kill.early {
            service.until_up(&run.api).await?;
            tokio::select! {
                () = run.until_progress(kill.at) => {}
                ended = service.until_ended() => match ended? {},
            }
        }
        tokio::time::sleep(kill.delay).await;
        service.check()?;
        service.kill().await?;
        run.has_killed();
        service.start_again()?;
    }
    service.until_up(&run.api).await?;
    service.until_ended().await
}
