"""Laws of growth, room by room."""

from laws import boosting, connectivity, control, curvature, dynamics, importance, ranks

LAWS = (
    *connectivity.LAWS,
    *dynamics.LAWS,
    *curvature.LAWS,
    *importance.LAWS,
    *boosting.LAWS,
    *control.LAWS,
    *ranks.LAWS,
)
