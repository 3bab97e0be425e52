"""The results of a folder on one page of HTML, and as the gallery of the documentation."""

from studies.report.gallery import write_gallery
from studies.report.page import Report, write_report
from studies.report.results import StudyResult, explanation, read_result

__all__ = ["Report", "StudyResult", "explanation", "read_result", "write_gallery", "write_report"]
