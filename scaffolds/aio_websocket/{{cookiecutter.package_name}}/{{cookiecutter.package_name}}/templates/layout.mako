<!DOCTYPE html>
<html lang="${request.locale_name.replace('_', '-')}">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>${self.title()} – {{ cookiecutter.project_name | e }}</title>
  <link rel="icon" href="${request.static_path('{{ cookiecutter.package_name }}:static/icon.svg')}" type="image/svg+xml">
  <link rel="stylesheet" href="${request.static_path('{{ cookiecutter.package_name }}:static/style.css')}">
  ${self.head()}
</head>
<body>
  <header class="bar">
    <a class="brand" href="${request.route_path('home')}">
      <img src="${request.static_path('{{ cookiecutter.package_name }}:static/icon.svg')}" alt="" width="28" height="28">
      {{ cookiecutter.project_name | e }}
    </a>
  </header>
  <main>
${next.body()}
  </main>
  <footer>
    Pyramid on asyncio, by aioext
  </footer>
</body>
</html>
<%def name="head()"></%def>
