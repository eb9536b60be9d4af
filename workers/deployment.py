"""Worker versioning: a worker as one build of a deployment, to which the server routes runs."""

from __future__ import annotations

import asyncio
import logging
import time

from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from runward.client.settings import Deployment

SEEN_S_MAX = 10.0
LOOK_AGAIN_S = 0.5
_LOG = logging.getLogger("runward.worker")


def versioned(deployment: Deployment) -> WorkerDeploymentConfig:
    """Returns the SDK's setting for a worker of this build.

    Workflows that do not say otherwise are pinned, as `AgentRun` is: they end on the build that
    they began on, so a new one may change whatever it likes.
    """
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment.name, deployment.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def tell_deployment(client: Client, deployment: Deployment) -> None:
    """Says so where new runs do not go to this build yet, and what would send them here."""
    try:
        current = await _current(client, deployment)
    except RPCError as error:
        _LOG.warning("Temporal does not say what is current of %r: %s", deployment.name, error)
        return
    if current != deployment.build_id:
        _LOG.info(
            "new runs go to %s. To send them here: temporal worker deployment set-current-version"
            " --deployment-name %s --build-id %s",
            f"build {current!r}" if current else "workers without a version",
            deployment.name,
            deployment.build_id,
        )


async def _current(client: Client, deployment: Deployment) -> str:
    """Returns the build that new runs go to, once the server has seen this one poll."""
    asked = DescribeWorkerDeploymentRequest(
        namespace=client.namespace, deployment_name=deployment.name
    )
    deadline = time.monotonic() + SEEN_S_MAX
    while True:
        try:
            said = await client.workflow_service.describe_worker_deployment(asked)
            found = said.worker_deployment_info
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND or time.monotonic() > deadline:
                raise
        else:
            builds = [one.deployment_version.build_id for one in found.version_summaries]
            if deployment.build_id in builds or time.monotonic() > deadline:
                return found.routing_config.current_deployment_version.build_id
        await asyncio.sleep(LOOK_AGAIN_S)
