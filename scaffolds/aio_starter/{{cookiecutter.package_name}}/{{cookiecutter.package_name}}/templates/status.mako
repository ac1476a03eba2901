<%inherit file="layout.mako"/>
<%def name="title()">Status</%def>
    <section class="hero">
      <h1>Status: ${status}</h1>
      <p>One view made this page and <a href="${request.route_path('status', extension='json')}">status.json</a>.
      The address decides, or else the <code>Accept</code> header.</p>
    </section>

    <section class="panel">
      <p class="note">Event loop <code>${event_loop}</code> in the thread
      <code>${thread}</code> of the process <code>${process}</code>, which the JSON does not
      tell: it has what the view names, and nothing else.</p>
    </section>
