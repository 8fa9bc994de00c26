"""Runs packages, whatever wrote them and whatever engine runs them. Imports numpy and OpenCV; engines when used."""
