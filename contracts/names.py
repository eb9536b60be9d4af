"""Names by which the parts find each other across Temporal; contracts, like the wire types."""

AGENT_RUN = "AgentRun"
TASK_QUEUE = "runward"

TICKET_HEADER = "runward-ticket"  # start ticket: on the workflow's start and on its first steps
STEP_HEADER = "runward-step"  # what a step needs beyond its input: the approval that it consumes

CALL_MODEL = "call_model"
TOOL_PREFIX = "tool."
REFUSED_TOOL = "tool.refused"
CLOSE_RUN = "run.close"
DECIDE_APPROVAL = "approval.decide"
RESOLVE_STEP = "step.resolve"

DECIDE_UPDATE = "decide"
DECISION_SIGNAL = "decision"
BUDGET_RAISED_SIGNAL = "budget.raised"
STATUS_QUERY = "status"
PENDING_QUERY = "pending_approvals"

REQUEST_DIGEST_MEMO = "runward.request"

TENANT_ATTRIBUTE = "RunwardTenant"
USER_ATTRIBUTE = "RunwardUser"
AGENT_ATTRIBUTE = "RunwardAgent"
STATE_ATTRIBUTE = "RunwardState"
SEARCH_ATTRIBUTES = (TENANT_ATTRIBUTE, USER_ATTRIBUTE, AGENT_ATTRIBUTE, STATE_ATTRIBUTE)
