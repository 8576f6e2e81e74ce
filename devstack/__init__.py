"""Real Apache Kafka and real PostgreSQL as children of this process, for one machine."""

from devstack.errors import StackError
from devstack.stack import Stack

__all__ = ["Stack", "StackError"]
